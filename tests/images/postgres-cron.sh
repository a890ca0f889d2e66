#!/usr/bin/env bash
# Makes the image named by $1 (postgres:15-cron): Debian's Postgres 15 with pg_cron, which keeps to the part of the
# official image's contract that the tests and deploy/compose.yaml use: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB.
source "$(dirname "$0")/debian.sh"
image=${1:-postgres:15-cron}
ready_docker
if ! docker image inspect "$image" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    debian_tree "$root" postgresql-15,postgresql-15-cron
    cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'ENTRY'
#!/bin/sh
# Makes the cluster where there is none yet, then becomes the server; its arguments are the server's.
set -e
bin=/usr/lib/postgresql/15/bin
data=${PGDATA:-/var/lib/postgresql/data}
user=${POSTGRES_USER:-postgres}
name=${POSTGRES_DB:-$user}
[ "$1" = postgres ] && shift
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
mkdir -p "$data" && chown postgres:postgres "$data" && chmod 700 "$data"
if [ ! -s "$data/PG_VERSION" ]; then
    password=$(mktemp)
    printf '%s' "${POSTGRES_PASSWORD:?is not set}" >"$password"
    chown postgres "$password"
    as_postgres $bin/initdb -D "$data" -U "$user" -E UTF8 --locale=C.UTF-8 -A scram-sha-256 --pwfile="$password" >/dev/null
    rm "$password"
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    printf '%s\n' "listen_addresses = '*'" "shared_preload_libraries = 'pg_cron'" "cron.database_name = '$name'" \
        "cron.use_background_workers = on" >>"$data/postgresql.conf"
    if [ "$name" != postgres ]; then
        echo "create database \"$name\"" | as_postgres $bin/postgres --single -D "$data" -c shared_preload_libraries= postgres >/dev/null
    fi
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups $bin/postgres -D "$data" "$@"
ENTRY
    chmod +x "$root/usr/local/bin/docker-entrypoint.sh"
    ln -s /usr/lib/postgresql/15/bin/pg_isready "$root/usr/local/bin/pg_isready"
    tar -C "$root" -c . | docker import --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["postgres"]' \
        --change 'EXPOSE 5432' --change 'VOLUME /var/lib/postgresql/data' - "$image" >/dev/null
fi
echo "$image"
