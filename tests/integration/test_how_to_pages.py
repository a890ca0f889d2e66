"""The how-to pages on Postgres and on pushes: their configuration and model, as printed, do what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psycopg

from tests.projects import Bench

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def block(page: str, language: str) -> str:
    """The page's first block in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", (HOW_TO / page).read_text(encoding="utf-8"), re.M | re.S)
    assert found
    return found[1]


def test_postgres(bench: Bench) -> None:
    """Customers and orders are read; an order that is gone there stays, as on_missing='keep' says."""
    for file in bench.models.iterdir():
        file.unlink()
    bench.write(bench.models / "sources.yml", block("postgres-replica.md", "yaml"))
    bench.write_model("orders", block("postgres-replica.md", "sql"))
    bench.write(bench.root / ".env", f'DATABASE_URL="{bench.dsn}"\nREPLICA_URL="{bench.dsn}"\n')
    with psycopg.connect(bench.dsn, autocommit=True) as replica:
        replica.execute("create table public.customers (id bigint primary key, name text)")
        replica.execute(
            "create table public.orders"
            " (id bigint primary key, customer_id bigint, total numeric, updated_at timestamptz)"
        )
        replica.execute("insert into public.customers values (1, 'Ada')")
        replica.execute("insert into public.orders values (1, 1, 12.50, now()), (2, 1, 'NaN', now())")
        bench.sync("replica")
        replica.execute("delete from public.orders where id = 1")
        replica.execute("update public.orders set total = 7, updated_at = now() where id = 2")
        bench.sync("replica")
    assert {key: str(row["total"]) for key, row in bench.current("orders").items()} == {"1": "12.50", "2": "7"}
    assert bench.value("select count(*) from raw_replica.customers") == 1


def test_push(bench: Bench) -> None:
    """The stream that is declared takes what the page's command sends."""
    bench.write(bench.models / "desk.yml", block("push-records.md", "yaml"))
    assert bench.call("migrate").returncode == 0
    ended = subprocess.run(
        bench.command("load", "desk", "tickets", "--stdin"),
        cwd=bench.root,
        env=bench.environment,
        input='{"id": 1, "state": "open"}',
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert bench.live("desk.tickets") == {"1": {"id": 1, "state": "open"}}
