"""Commands for conflicts between sources and the overrides that decide them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from syncline.cli.context import ListGroup, command, connected, console, example
from syncline.errors import ConfigurationError
from syncline.paths import user_name
from syncline.values import fields_of, moment, print_exact, printable, shown, shown_fields

if TYPE_CHECKING:
    from syncline.db import Connection

_STATES = ("open", "ignored", "resolved", "closed")
_BUILT = "the next run builds it: `syncline run`"

_reason = click.option("--reason", help="Why: it is kept with the decision.")
_NUMBERS = click.IntRange(1, 2**63 - 1)
_number = click.argument("conflict_id", metavar="ID", type=_NUMBERS)
_what = click.argument("what", nargs=-1, required=True, metavar="ID | ENTITY KEY FIELD")


@click.group(
    cls=ListGroup,
    epilog=example("syncline conflicts --entity partners"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def conflicts() -> None:
    """List the fields on which sources disagree; decide, ignore, or take a decision back."""


@command(name="list", epilog=example("syncline conflicts list --entity partners --state all"))
@click.option("--entity", help="Only of this entity.")
@click.option(
    "--state", type=click.Choice([*_STATES, "all"]), default="open", show_default=True, help="Only in this state."
)
@click.option("--key", help="Only of this row, by its _key; with --entity by its unique key, too.")
@click.option(
    "--overrides", is_flag=True, help="The overrides in their place; with --state all those that were lifted, too."
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows to print; --json prints all."
)
def list_(as_json: bool, entity: str | None, state: str, key: str | None, overrides: bool, limit: int) -> None:
    """List the fields on which sources disagree, newest first."""
    from syncline import db

    with connected() as (_, connection):
        if entity:
            db.call(connection, "check_known", [entity])
        wanted = db.call_value(connection, "find_key", entity, key) if entity and key else key
        most = None if as_json else limit + 1
        if overrides:
            rows = db.call_exact(connection, "list_overrides", entity, wanted, state == "all", most)
        else:
            states = None if state == "all" else [state]
            rows = db.call_exact(connection, "list_conflicts", entity, states, wanted, most)
    if as_json:
        print_exact({"overrides" if overrides else "conflicts": rows})
        return
    (_show_overrides if overrides else _show_conflicts)(rows[:limit])
    if len(rows) > limit:
        console().print(f"[dim]the first {limit}: --limit, or --json for all[/]", highlight=False)


def _show_conflicts(rows: list[dict[str, Any]]) -> None:
    from syncline.report import rows_table

    headings = {
        "conflict_id": "conflict",
        "entity": "entity",
        "_key": "key",
        "column_name": "field",
        "state": "state",
        "said": "what the sources say",
        "winner": "winner",
        "rule": "by",
        "times_seen": "seen",
    }
    table = rows_table([{**row, "said": shown_fields(row["candidates"], 40)} for row in rows], headings)
    console().print(table if rows else "no conflicts")


def _show_overrides(rows: list[dict[str, Any]]) -> None:
    from syncline.report import rows_table

    headings = {
        "entity": "entity",
        "_key": "key",
        "column_name": "field",
        "set": "set to",
        "was": "in place of",
        "set_by": "by",
        "set_at": "at (UTC)",
        "reason": "reason",
        "status": "status",
    }
    made = [{**row, "set": _decision(row), "was": shown(row["displaced"], 40)} for row in rows]
    console().print(rows_table(made, headings) if rows else "no overrides")


def _decision(override: dict[str, Any]) -> str:
    return f"what {override['source']} says" if override["source"] else shown(override["value"], 40)


@command(epilog=example("syncline conflicts show 2"))
@_number
def show(as_json: bool, conflict_id: int) -> None:
    """Show one conflict: what each source says, which wins and why, who decided."""
    from syncline import db

    with connected() as (_, connection):
        found = db.call_exact(connection, "read_conflict", conflict_id)[0]
        overrides = db.call_exact(connection, "list_overrides", found["entity"], found["_key"])
    override = next((row for row in overrides if row["column_name"] == found["column_name"]), None)
    if as_json:
        print_exact({**found, "override": override})
        return
    lines = {
        "conflict": f"{conflict_id}: {found['entity']} {found['_key']} {found['column_name']}",
        "state": found["state"],
        **{f"{source} says": shown(value) for source, value in fields_of(found["candidates"]).items()},
        # What a person decided stands in the place of the rule; who lifted a decision has decided nothing.
        "decision": _told(override) if override else None,
        "winner": None if override else _winner(found),
        "seen": "once" if found["times_seen"] == 1 else f"{found['times_seen']} times",
        "since (UTC)": moment(found["first_seen_at"]),
        "last (UTC)": moment(found["last_seen_at"]),
        "closed (UTC)": moment(found["closed_at"]),
        "ignored": _by(found["decided_by"], found["decided_at"], found["reason"])
        if found["state"] == "ignored"
        else None,
    }
    width = max(len(name) for name, value in lines.items() if value) + 2
    for name, value in lines.items():
        if value:
            click.echo(f"{printable(name) + ':':<{width}}{printable(str(value))}")
    if found["state"] in ("open", "ignored"):
        click.echo(f"decide:{'':<{width - 7}}syncline conflicts resolve {conflict_id} --use SOURCE | --value JSON")


def _told(override: dict[str, Any]) -> str:
    by = _by(override["set_by"], override["set_at"], override["reason"])
    return f"{_decision(override)}, {by} ({override['status']})"


def _by(who: str, at: Any, reason: str | None) -> str:
    return f"by {who} at {moment(at)}" + (f": {reason}" if reason else "")


def _winner(conflict: dict[str, Any]) -> str:
    meanings = {
        "authority": "it is a source of truth, the others are references",
        "priority": "it comes first in the field's priority",
        "kept": "references only fill new rows: what the row has stays",
    }
    return f"{conflict['winner'] or 'none'}: {meanings[conflict['rule']]}"


@command(epilog=example("syncline conflicts resolve 2 --use crm --reason 'the sheet is old'"))
@_what
@click.option("--use", metavar="SOURCE", help="Trust this source: its value wins as long as it has one.")
@click.option("--value", metavar="JSON", help="Set this value; what is no JSON is a text.")
@_reason
def resolve(as_json: bool, what: tuple[str, ...], use: str | None, value: str | None, reason: str | None) -> None:
    """Decide a conflict, or set a field of any row, by an override that stands until it is lifted."""
    from syncline import db

    if (use is None) == (value is None):
        raise click.UsageError("give --use SOURCE or --value JSON: one of them")
    decision = {
        "p_value": None if value is None else _as_json(value),
        "p_source": use,
        "p_reason": reason,
    }
    with connected() as (_, connection), connection.transaction():
        entity, key, field, conflict_id = _find(connection, what)
        if conflict_id is not None:
            number = db.call_value(connection, "resolve_conflict", conflict_id, **decision, p_decided_by=user_name())
        else:
            number = db.call_value(connection, "set_override", entity, key, field, **decision, p_set_by=user_name())
    done = {"override_id": number, "entity": entity, "_key": key, "column_name": field}
    _tell(as_json, done, f"{entity} {key} {field} is overridden; {_BUILT}")


@command(epilog=example("syncline conflicts ignore 2 --reason 'both are right'"))
@_number
@_reason
def ignore(as_json: bool, conflict_id: int, reason: str | None) -> None:
    """Leave a conflict to its rule, silently, as long as the sources say what they say now."""
    from syncline import db

    with connected() as (_, connection):
        db.call(connection, "ignore_conflict", conflict_id, reason, user_name())
    _tell(as_json, {"ignored": conflict_id}, f"conflict {conflict_id} is ignored until a source says something else")


@command(epilog=example("syncline conflicts lift partners a email"))
@_what
def lift(as_json: bool, what: tuple[str, ...]) -> None:
    """Lift an override: the field has what the sources say again."""
    from syncline import db

    with connected() as (_, connection), connection.transaction():
        entity, key, field, _ = _find(connection, what)
        number = db.call_value(connection, "lift_override", entity, key, field, user_name())
    done = {"override_id": number, "entity": entity, "_key": key, "column_name": field}
    _tell(as_json, done, f"the override of {entity} {key} {field} is lifted; {_BUILT}")


def _find(connection: Connection, what: tuple[str, ...]) -> tuple[str, str, str, int | None]:
    """Return entity, key, field and the conflict's number, if one was given."""
    from syncline import db

    if len(what) == 1 and what[0].isdecimal():
        number = _NUMBERS(what[0], None, click.get_current_context())
        found = db.call(connection, "read_conflict", number)[0]
        return found["entity"], found["_key"], found["column_name"], found["conflict_id"]
    if len(what) != 3:
        raise ConfigurationError(
            f"{' '.join(what)!r} is neither a conflict nor a field",
            "Give a conflict's number, or an entity, a key and a field: `syncline conflicts list` shows them.",
        )
    entity, key, field = what
    return entity, db.call_value(connection, "find_key", entity, key), field, None


def _as_json(text: str) -> str:
    """Return the text as JSON: as it is where it is some, else as a string."""
    import msgspec

    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return msgspec.json.encode(text).decode()
    return text


def _tell(as_json: bool, done: dict[str, Any], text: str) -> None:
    if as_json:
        print_exact(done)
    else:
        click.echo(printable(text))


for _command in (list_, show, resolve, ignore, lift):
    conflicts.add_command(_command)
