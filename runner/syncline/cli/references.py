"""The command that shows external references."""

from __future__ import annotations

from typing import Any

import click

from syncline.cli.context import command, connected, console, example
from syncline.errors import ConfigurationError
from syncline.values import print_exact, shown_fields


@command(epilog=example("syncline references --type partner --unseen 90d"))
@click.option("--type", "type_", metavar="TYPE", help="Only of this type.")
@click.option("--source", help="Only of this source.")
@click.option("--unseen", metavar="AGE", help="Only those whose record has been gone for so long: 90d.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="References to print; --json prints all."
)
def references(as_json: bool, type_: str | None, source: str | None, unseen: str | None, limit: int) -> None:
    """Show the internal ids of records elsewhere: how many there are, of which type and source, and which."""
    from syncline import db
    from syncline.config import parse_duration
    from syncline.report import rows_table

    with connected() as (_, connection):
        counts = connection.execute("select * from syncline.reference_status order by type, source").fetchall()
        rows = db.call_exact(
            connection,
            "list_references",
            p_type=type_,
            p_source=source,
            p_unseen_for=parse_duration(unseen) if unseen else None,
            p_limit=None if as_json else limit + 1,
        )
    known = sorted({row["type"] for row in counts})
    if type_ is not None and known and type_ not in known:
        raise ConfigurationError(f"there are no references of the type {type_!r}", f"Types: {', '.join(known)}.")
    counts = [row for row in counts if type_ in (None, row["type"]) and source in (None, row["source"])]
    if as_json:
        print_exact({"counts": counts, "references": rows})
        return
    screen = console()
    if not counts:
        screen.print("no references: say `external_ref` in a model's config")
        return
    headings = {
        "type": "type",
        "source": "source",
        "known": "references",
        "gone": "gone",
        "gone_for_90_days": "for 90 days",
    }
    screen.print(rows_table(counts, headings))
    screen.print()
    if rows:
        screen.print(rows_table([_shown(row) for row in rows[:limit]], _HEADINGS))
    else:
        screen.print("none of them is meant")
    if len(rows) > limit:
        screen.print(f"[dim]the first {limit}: --limit, or --json for all[/]", highlight=False)


_HEADINGS = {
    "type": "type",
    "source": "source",
    "external_key": "key there",
    "ref_id": "id here",
    "entity": "entity",
    "first_seen_at": "first seen (UTC)",
    "gone_at": "gone (UTC)",
    "metadata": "metadata",
}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "metadata": shown_fields(row["metadata"], 40)}
