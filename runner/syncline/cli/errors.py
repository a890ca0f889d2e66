"""Commands for row errors: what did not fit, all about one, and another try."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import click

from syncline.cli.context import (
    ListGroup,
    command,
    connected,
    console,
    database,
    example,
    print_error,
    print_json,
    read_project,
)
from syncline.errors import ConfigurationError
from syncline.values import printable

_entity = click.option("--entity", help="Only of this entity.")
_stream = click.option("--stream", help="Only of this stream: its name, or source.stream.")


@click.group(
    cls=ListGroup,
    epilog=example("syncline errors --entity talents"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def errors() -> None:
    """List the records and values that did not fit and came no better since; look at one, or try them again."""


@command(name="list", epilog=example("syncline errors list --stream people"))
@_entity
@_stream
@click.option("--run", "run_id", type=int, help="All errors of this run, whether they still hold or not.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows to print; --json prints all."
)
def list_(as_json: bool, entity: str | None, stream: str | None, run_id: int | None, limit: int) -> None:
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
        "error_id": "error",
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


@command(epilog=example("syncline errors show 17"))
@click.argument("error_id", type=click.IntRange(1, 2**63 - 1))
def show(as_json: bool, error_id: int) -> None:
    """Show all that is known of one row error, and its record."""
    from syncline.row_errors import read_error

    with connected() as (project, connection):
        found = read_error(connection, project, error_id)
    if as_json:
        print_json(found)
        return
    replays = [f"run {replay['run_id']}: {replay['outcome'] or 'unsettled'}" for replay in found["replays"]]
    lines = {
        "message": found["message"],
        "severity": found["severity"],
        "stream": found["stream"],
        "entity": found["entity"],
        "key": found["_key"],
        "row": found["row_number"],
        "column": found["column_name"],
        "path": found["path"],
        "type": found["type"],
        "value": found["value"],
        "model": found["model"],
        "since (UTC)": found["created_at"][:19].replace("T", " "),
        "run": found["run_id"],
        "load": found["load_id"],
        "build": found["build_id"],
        "closed (UTC)": (found["closed_at"] or "")[:19].replace("T", " "),
        "note": found["note"],
        "replayed": ", ".join(replays),
        "record": found["record"] or _missing_record(found, project.stream_labels),
    }
    for name, value in lines.items():
        if value not in (None, ""):
            click.echo(f"{name + ':':<14}{printable(str(value), None)}")
    if found["is_replayable"]:
        click.echo(f"try again:    syncline errors replay {error_id}")


def _missing_record(found: dict[str, Any], declared: Collection[str]) -> str:
    if found["is_redacted"]:
        return "not shown: the stream is redacted"
    if found["stream"] is None:
        return "not shown: it is not known which stream it came from"
    if found["stream"] not in declared:
        return "not shown: the project does not declare its stream any more"
    return "not kept, or gone"


@command(epilog=example("syncline errors replay --entity talents"))
@click.argument("error_ids", type=click.IntRange(1, 2**63 - 1), nargs=-1, metavar="[ERROR_ID]...")
@_entity
@_stream
@click.option("--run", "run_id", type=int, help="Only those of this run.")
@click.option("--all", "is_all", is_flag=True, help="Every open row error.")
@click.option(
    "--wait-timeout", type=float, default=600, show_default=True, help="Seconds to wait for a run in the way."
)
def replay(
    as_json: bool,
    error_ids: tuple[int, ...],
    entity: str | None,
    stream: str | None,
    run_id: int | None,
    is_all: bool,
    wait_timeout: float,
) -> None:
    """Try rejected records and values again, now that the SQL or the key was mended: one run, published like any."""
    import msgspec

    from syncline import db
    from syncline.row_errors import model_place
    from syncline.run_options import Replay

    asked = Replay(errors=tuple(sorted(set(error_ids))), entity=entity, stream=stream, run=run_id, all=is_all)
    wanted = msgspec.json.encode(asked).decode()
    with connected() as (project, connection):
        sources = db.call_value(connection, "replay_sources", wanted)
        if entity is not None and model_place(project.root, entity, None) is None:
            raise ConfigurationError(
                f"the project has no entity {entity} any more",
                "Bring its model back, or drop it for good: select syncline.drop_entity(ENTITY).",
            )
        left = [] if sources else db.call(connection, "errors_left", wanted)
    if not sources:
        _print_replay(as_json, None, None, left)
        return
    report, replayed = _work(as_json, tuple(sources), asked, wait_timeout)
    if replayed["left"]:
        with connected() as (_, connection):
            left = db.call(connection, "errors_left", wanted, report["run_id"])
    _print_replay(as_json, report, replayed, left)
    for error in report["errors"]:
        print_error(error["message"], error.get("hint"))
        sys.exit(error.get("exit_code", 1))


def _work(
    as_json: bool, sources: tuple[str, ...], asked: Any, wait_timeout: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the replay here; return the run's report and the replay's."""
    from syncline import db, telemetry
    from syncline.pipeline import Engine
    from syncline.pipeline import run as work
    from syncline.report import LiveWatcher, PlainWatcher, SilentWatcher, print_run
    from syncline.run_options import RunOptions

    project = read_project()
    dsn = database(project)
    telemetry.configure("syncline errors replay")
    screen = console(stderr=as_json)
    watcher: Any = SilentWatcher(screen) if as_json else (LiveWatcher if screen.is_terminal else PlainWatcher)(screen)
    with Engine(project, dsn) as engine, watcher:
        report = work(engine, RunOptions(sources=sources, replay=asked, wait_timeout=wait_timeout), watcher)
    if not as_json:
        print_run(screen, report)
    with db.connect(dsn) as connection:
        return report, db.call_value(connection, "replay_report", report["run_id"])


_MEANINGS = {
    "outrun": "not replayed, and closed: their keys came again, or went, since",
    "unsettled": "not told: the run failed before",
}


def _print_replay(
    as_json: bool, report: dict[str, Any] | None, replayed: dict[str, Any] | None, left: list[dict[str, Any]]
) -> None:
    if as_json:
        print_json({"replay": replayed, "run": report})
        return
    if replayed is None:
        click.echo("nothing to replay" + ("" if left else ": no such row error is open"))
    else:
        click.echo(f"replayed {replayed['replayed']}: {replayed['fine']} now fine, {replayed['bad']} still bad")
        for name, meaning in _MEANINGS.items():
            if replayed[name]:
                click.echo(f"{replayed[name]} {meaning}")
    for row in left:
        click.echo(f"{row['errors']} left as they are: {row['reason']}")


for _command in (list_, show, replay):
    errors.add_command(_command)
