# Postgres with pg_cron, for compose.yaml: the official image, and the extension from the same packages.
ARG MAJOR=17
FROM postgres:${MAJOR}
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql-${PG_MAJOR}-cron \
    && rm -rf /var/lib/apt/lists/*
