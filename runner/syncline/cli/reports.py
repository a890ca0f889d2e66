"""Commands that show what is there and change nothing."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from syncline.cli.context import command, connected, console, example, print_json


@command(epilog=example("syncline diff talents"))
@click.argument("entity")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="Rows to print; --json prints all."
)
def diff(as_json: bool, entity: str, limit: int) -> None:
    """Show row by row what the candidate would change; with none, what the last publish changed."""
    from syncline import db

    with connected() as (_, connection):
        sides = db.call(connection, "sides", entity)[0]
        # As texts: a numeric must not lose digits on its way through a float.
        rows = connection.execute(
            "select change, _key, old::text, new::text from syncline.diff(%s, %s)",
            (entity, None if as_json else limit + 1),
        ).fetchall()
    for row in rows:
        for side in ("old", "new"):
            row[side] = {} if row[side] is None else msgspec.json.decode(row[side], type=dict[str, msgspec.Raw])
    what = "failed candidate" if sides["is_failed"] else "candidate" if sides["is_candidate"] else "last publish"
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row | {"old": row["old"] or None, "new": row["new"] or None, "shows": what}))
        return
    screen = console()
    shown = f"the {what} against current" if sides["is_candidate"] else "what the last publish changed"
    screen.print(f"[bold]{entity}[/]: {shown}", highlight=False)
    for row in rows[:limit]:
        _print_change(screen, row, [column["name"] for column in sides["columns"]])
    if len(rows) > limit:
        screen.print("[dim]… and more: --limit, or --json for all[/]", highlight=False)
    if not rows:
        screen.print("no differences")


def _print_change(screen: Any, row: dict[str, Any], columns: list[str]) -> None:
    from rich.markup import escape

    marks = {"inserted": "[green]+[/]", "deleted": "[red]-[/]", "updated": "[yellow]~[/]"}
    screen.print(f"{marks[row['change']]} {escape(row['_key'])}", highlight=False)
    old, new = ({name: bytes(value).decode() for name, value in row[side].items()} for side in ("old", "new"))
    for name in columns:
        if name == "_key" or old.get(name) == new.get(name):
            continue
        before, after = escape(old.get(name, "null")), escape(new.get(name, "null"))
        if row["change"] == "updated":
            screen.print(f"    {name}: [red]{before}[/] → [green]{after}[/]", highlight=False)
        else:
            screen.print(f"    {name}: {after if row['change'] == 'inserted' else before}", highlight=False)


@command(epilog=example("syncline status"))
def status(as_json: bool) -> None:
    """Show entities and streams: what is published, since when, what waits, what is wrong."""
    from syncline.config import model_names
    from syncline.report import rows_table

    with connected() as (project, connection):
        entities = connection.execute("select * from syncline.entity_status order by entity").fetchall()
        streams = connection.execute("select * from syncline.stream_status order by source, stream").fetchall()
    declared, models = project.stream_labels, model_names(project.root)
    for row in entities:
        row["is_in_project"] = row["entity"] in models
    for row in streams:
        row["is_in_project"] = f"{row['source']}.{row['stream']}" in declared
    if as_json:
        print_json({"entities": entities, "streams": streams})
        return
    screen = console()
    for row in entities:
        row["version"] = f"v{row['current_version']}" if row["current_version"] else "none"
        row["held"] = bool(row["held_at"])
    for row in streams:
        row["label"] = f"{row['source']}.{row['stream']}"
    for row in [*entities, *streams]:
        row["place"] = "" if row["is_in_project"] else "not in the project"
    if entities:
        headings = {
            "entity": "entity",
            "version": "version",
            "rows_total": "rows",
            "published_at": "published at (UTC)",
            "candidate_state": "candidate",
            "held": "held",
            "can_roll_back": "can go back",
            "open_errors": "errors",
            "place": "",
        }
        screen.print(rows_table(entities, headings))
        screen.print()
    headings = {
        "label": "stream",
        "live_records": "records",
        "loaded_at": "loaded at (UTC)",
        "kind": "kind",
        "open_errors": "errors",
        "place": "",
    }
    screen.print(rows_table(streams, headings) if streams else "no streams: declare a source, then `syncline migrate`")
    if not entities:
        screen.print("[dim]no entities were built: `syncline run`[/]")


@command(epilog=example("syncline runs --limit 5"))
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
def runs(as_json: bool, limit: int) -> None:
    """List the newest runs, newest first."""
    from syncline import db
    from syncline.report import rows_table

    with connected() as (_, connection):
        reports = [row["run_reports"] for row in db.call(connection, "run_reports", limit)]
    if as_json:
        print_json({"runs": reports})
        return
    rows = []
    for report in reports:
        changed = [
            sum(entity[kind] for entity in report["entities"].values()) for kind in ("inserted", "updated", "deleted")
        ]
        error = next((error["message"] for error in report["errors"]), "")
        rows.append(
            {
                **report,
                "sources": ", ".join(report["sources"]),
                "started": (report["started_at"] or "")[:19].replace("T", " "),
                "seconds": f"{(report['duration_ms'] or 0) / 1000:.1f}",
                "changes": "+{} ~{} -{}".format(*changed) if report["entities"] else "",
                "error": error if len(error) < 60 else error[:59] + "…",
            }
        )
    headings = {
        "run_id": "run",
        "status": "status",
        "sources": "sources",
        "trigger": "trigger",
        "started": "started at (UTC)",
        "seconds": "seconds",
        "changes": "changes",
        "row_errors": "row errors",
        "error": "error",
    }
    console().print(rows_table(rows, headings) if rows else "no runs yet: `syncline run`")


@command(epilog=example("syncline errors --entity talents"))
@click.option("--entity", help="Only of this entity.")
@click.option("--stream", help="Only of this stream: its name, or source.stream.")
@click.option("--run", "run_id", type=int, help="All errors of this run, whether they still hold or not.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows to print; --json prints all."
)
def errors(as_json: bool, entity: str | None, stream: str | None, run_id: int | None, limit: int) -> None:
    """List the records and values that did not fit and came no better since."""
    from syncline import db
    from syncline.report import rows_table

    with connected() as (_, connection):
        db.call(connection, "check_reported", entity, stream, run_id)
        rows = db.call(connection, "list_errors", entity, stream, run_id, None if as_json else limit + 1)
    if as_json:
        print_json({"errors": rows})
        return
    headings = {
        "severity": "severity",
        "stream": "stream",
        "entity": "entity",
        "_key": "key",
        "row_number": "row",
        "column_name": "column",
        "value": "value",
        "message": "message",
    }
    for row in rows:
        row["value"] = (row["value"] or "")[:60]
    screen = console()
    screen.print(rows_table(rows[:limit], headings) if rows else "no errors")
    if len(rows) > limit:
        screen.print(f"[dim]the first {limit}: --limit, or --json for all[/]", highlight=False)
