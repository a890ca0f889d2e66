"""The command that shows what became of a row, and the feed of all changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from syncline.cli.context import command, connected, console, example
from syncline.errors import ConfigurationError
from syncline.values import fields_of, moment, print_exact, printable, shown, shown_fields


@command(epilog=example("syncline history partners a"))
@click.argument("entity", required=False)
@click.argument("key", required=False)
@click.option("--run", "run_id", type=int, help="Only what this run published.")
@click.option("--since", metavar="TIME", help="Only since then: 2026-11-22T10:00, or so long ago: 6h, 7d.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many.")
def history(
    as_json: bool,
    entity: str | None,
    key: str | None,
    run_id: int | None,
    since: str | None,
    limit: int,
) -> None:
    """Show the life of one row, by its _key or unique key; without a key what changed last, newest first."""
    from syncline import db

    if key is not None and (run_id is not None or since is not None):
        raise click.UsageError("--run and --since belong to the feed, without a key")
    start = None if since is None else _time(since)
    with connected() as (_, connection):
        if entity is not None and key is not None:
            _life(connection, entity, key, limit, as_json=as_json)
            return
        if entity is not None:
            db.call(connection, "check_known", [entity])
        db.call(connection, "check_reported", None, None, run_id)
        rows = db.call_exact(connection, "list_changes", p_entity=entity, p_run_id=run_id, p_since=start, p_limit=limit)
    if as_json:
        print_exact({"changes": rows})
        return
    for row in rows:
        head = f"{moment(row['published_at'])}  {row['entity']} {row['_key']}"
        _print(head, _change(row["change"], is_rollback=row["is_rollback"]), row["run_id"], _fields(row))
    if not rows:
        click.echo("no changes: those of a first publish are not recorded one by one")


def _life(connection: Any, entity: str, key: str, limit: int, *, as_json: bool) -> None:
    from syncline import db

    found = db.call_value(connection, "find_key", entity, key)
    rows = db.call_exact(connection, "life_of", entity, found, limit)
    if not rows:
        raise ConfigurationError(
            f"nothing is known of a row {key} of {entity}", "Give its _key, or the unique key of a row that is there."
        )
    if as_json:
        print_exact({"entity": entity, "_key": found, "events": rows})
        return
    console().print(f"[bold]{entity}[/] {printable(found)}", highlight=False)
    for row in rows:
        field = f" of {row['column_name']}" if row["column_name"] else ""
        by = f" by {row['done_by']}" if row["done_by"] else ""
        detail = f": {row['detail']}" if row["detail"] and row["event"] != "override lifted" else ""
        _print(moment(row["happened_at"]), f"{row['event']}{field}{by}{detail}", row["run_id"], _event_fields(row))


def _print(head: str, what: str, run_id: int | None, fields: list[str]) -> None:
    click.echo(printable(f"{head}  {what}{f' (run {run_id})' if run_id else ''}"))
    for line in fields:
        click.echo(f"    {line}")


def _change(change: str, *, is_rollback: bool) -> str:
    return f"rolled back: {change}" if is_rollback else change


def _fields(row: dict[str, Any]) -> list[str]:
    """Return the lines of a change: of an update what was and what is, else what the row holds."""
    old, new = fields_of(row["old"]), fields_of(row["new"])
    if old and new:
        names = [*new, *(name for name in old if name not in new)]
        return [f"{printable(name)}: {shown(old.get(name))} → {shown(new.get(name))}" for name in names]
    return [f"{printable(name)}: {shown(value)}" for name, value in (new or old).items() if bytes(value) != b"null"]


def _event_fields(row: dict[str, Any]) -> list[str]:
    if row["event"] == "override lifted":
        return []
    if row["event"] == "override set":
        return [f"{shown(row['old'])} → {shown(row['new'])}"] if row["new"] is not None else []
    if row["event"] == "conflict":
        return [shown_fields(row["new"])]
    return _fields(row)


def _time(text: str) -> datetime:
    """Return the time that is meant: itself, in UTC unless it says otherwise, or so long ago."""
    from syncline.config import parse_duration

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.now(UTC) - parse_duration(text)
        except (ConfigurationError, OverflowError):
            raise ConfigurationError(
                f"{text!r} is no time", "Write it as 2026-11-22 or 2026-11-22T10:00, or as a duration: 6h, 7d."
            ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
