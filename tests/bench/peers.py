"""Loads people by dlt, in an environment that has it: `peers.py file|http|postgres SOURCE DATABASE`."""

from __future__ import annotations

import sys

import dlt


def resource(kind: str, source: str) -> object:
    if kind == "file":
        from dlt.sources.filesystem import filesystem, read_jsonl

        folder, _, name = source.rpartition("/")
        return filesystem(bucket_url=f"file://{folder}", file_glob=name) | read_jsonl(chunksize=10_000)
    if kind == "http":
        from dlt.sources.rest_api import rest_api_source

        paginator = {"type": "page_number", "base_page": 1, "total_path": "pages"}
        endpoint = {"path": "people", "data_selector": "data", "paginator": paginator}
        resources = [{"name": "people", "endpoint": endpoint}]
        return rest_api_source({"client": {"base_url": source}, "resources": resources}).resources["people"]
    from dlt.sources.sql_database import sql_table

    return sql_table(credentials=source, table="people", chunk_size=50_000)


def main() -> None:
    kind, source, database = sys.argv[1:]
    pipeline = dlt.pipeline(f"bench_{kind}", destination=dlt.destinations.postgres(database), dataset_name="bench")
    people = resource(kind, source)
    people.apply_hints(table_name="people", primary_key="id", write_disposition="merge")
    pipeline.run(people)


if __name__ == "__main__":
    main()
