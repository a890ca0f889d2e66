"""A project with an http source on a database of its own, loaded through the real loader and command line."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from syncline import db
from syncline.cli import main
from syncline.config import read_project
from syncline.connectors import open_connector
from syncline.load import LoadOptions, load_stream
from syncline.migrate import migrate
from tests.http_api import Api


class Shop:
    """A project with the http source `shop` and its stream `orders`, on a database of its own."""

    def __init__(self, api: Api, dsn: str, root: Path) -> None:
        self.api, self.dsn, self.root = api, dsn, root

    def configure(self, source: dict[str, Any], **streams: dict[str, Any]) -> None:
        tables = [
            {"name": name, "config": {"meta": {"syncline": {"key": "id", "path": f"/{name}", **settings}}}}
            for name, settings in streams.items()
        ]
        meta = {"connector": "http", "base_url": self.api.url, "retries": 1, **source}
        declared = {"name": "shop", "schema": "raw_shop", "config": {"meta": {"syncline": meta}}, "tables": tables}
        (self.root / "models").mkdir(exist_ok=True)
        (self.root / "dbt_project.yml").write_text("name: shop\n")
        (self.root / "models" / "sources.yml").write_text(json.dumps({"sources": [declared]}))
        self.project = read_project(self.root)
        with db.connect(self.dsn) as connection:
            migrate(connection, self.project)

    def load(self, stream: str = "orders", **options: Any) -> dict[str, Any]:
        source = self.project.sources["shop"]
        connector = open_connector(self.project, source)
        with db.connect(self.dsn) as connection:
            try:
                wanted = LoadOptions(**options)
                return load_stream(self.project, source, connector, source.streams[stream], connection, wanted)
            finally:
                connector.close()

    def command(self, *arguments: str) -> Result:
        """Run a command that starts no dbt."""
        with chdir(self.root):
            return CliRunner().invoke(main, arguments, env={"DATABASE_URL": self.dsn})

    def live(self, stream: str) -> list[dict[str, Any]]:
        return [row["payload"] for row in self.query(f"select payload from raw_shop.{stream} order by _key")]

    def query(self, statement: str) -> list[dict[str, Any]]:
        with db.connect(self.dsn) as connection:
            return [dict(row) for row in connection.execute(statement).fetchall()]

    @property
    def ids(self) -> list[int]:
        return [row["id"] for row in self.query("select (payload ->> 'id')::int as id from raw_shop.orders order by 1")]

    @property
    def state(self) -> dict[str, Any]:
        return self.query("select cursor, unfinished from syncline.streams where stream = 'orders'")[0]
