"""Commands that show what is there and change nothing."""

from __future__ import annotations

import click

from syncline.cli.context import command, connected, console, example, print_json


@command(epilog=example("syncline diff talents"))
@click.argument("entity")
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="Rows to print; --json prints all."
)
def diff(as_json: bool, entity: str, limit: int) -> None:
    """Show row by row what the candidate would change; with none, what the last publish changed."""
    from syncline import preview
    from syncline.report import describe_counts, print_changes

    with connected() as (_, connection):
        summary = preview.summary(connection, entity)
        if as_json:
            for piece in preview.in_pieces(preview.whole_rows(connection, summary)):
                click.echo(piece, nl=False)
            return
        screen = console()
        of = (
            "what the last publish changed"
            if summary.shows == "last publish"
            else f"the {summary.shows} against current"
        )
        counts = describe_counts(summary.counts) or "no row differs"
        screen.print(f"[bold]{entity}[/]: {of}: {counts}", highlight=False)
        print_changes(screen, summary, preview.changes(connection, entity, limit))
        if sum(summary.counts.values()) > limit:
            screen.print("[dim]--limit N shows more, --json all[/]", highlight=False)


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
            **({"open_conflicts": "conflicts"} if any(row["open_conflicts"] for row in entities) else {}),
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
