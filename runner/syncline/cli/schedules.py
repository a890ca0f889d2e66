"""Commands for schedules: when which run is asked for, and who asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from syncline.cli.context import command, connected, console, example, print_json
from syncline.errors import ConfigurationError
from syncline.paths import user_name

if TYPE_CHECKING:
    from syncline.config import Project
    from syncline.db import Connection


@click.group(
    epilog=example("syncline schedule create nightly --cron '0 3 * * *'"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def schedule() -> None:
    """Run on a schedule: make, list and change schedules."""


_name = click.argument("name")
_sources = click.argument("sources", nargs=-1, metavar="[SOURCE]...")
_entity = click.option("--entity", "entities", multiple=True, help="Only this entity; may be given again.")
_stream = click.option("--stream", "streams", multiple=True, help="Only this stream; may be given again.")
_retries = click.option(
    "--retries", type=click.IntRange(0), help="How often a failed run is tried again; 2 by default."
)


@command(name="create", epilog=example("syncline schedule create nightly --cron '0 3 * * *' --zone Europe/Prague shop"))
@_name
@_sources
@click.option("--cron", required=True, help="Minute, hour, day of the month, month, day of the week.")
@click.option("--zone", default="UTC", show_default=True, help="The time zone that the expression goes by.")
@_entity
@_stream
@click.option("--dry-run", is_flag=True, help="Publish nothing.")
@click.option("--full-refresh", is_flag=True, help="Load in full, and build from all records.")
@_retries
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds after which an attempt fails.")
def create(
    as_json: bool,
    name: str,
    cron: str,
    zone: str,
    sources: tuple[str, ...],
    entities: tuple[str, ...],
    retries: int | None,
    timeout: float | None,
    **options: Any,
) -> None:
    """Make a schedule: when all sources run, or those named."""
    from syncline import schedules

    with connected() as (project, connection):
        _check_entities(project, connection, entities)
        schedules.create_schedule(
            connection,
            name,
            cron,
            zone,
            sources,
            entities,
            _merge({}, options),
            max_attempts=1 + (2 if retries is None else retries),
            timeout=timeout,
            created_by=user_name(),
        )
        _show(connection, name, as_json=as_json)


@command(name="set", epilog=example("syncline schedule set nightly --cron '30 3 * * *'"))
@_name
@_sources
@click.option("--all-sources", is_flag=True, help="All sources that are declared.")
@click.option("--cron", help="Minute, hour, day of the month, month, day of the week.")
@click.option("--zone", help="The time zone that the expression goes by.")
@_entity
@click.option("--all-entities", is_flag=True, help="All entities.")
@_stream
@click.option("--all-streams", is_flag=True, help="All streams.")
@click.option("--dry-run/--no-dry-run", default=None, help="Publish nothing, or publish.")
@click.option("--full-refresh/--no-full-refresh", default=None, help="Load and build all anew, or what changed.")
@_retries
@click.option("--timeout", type=click.FloatRange(0), help="Seconds after which an attempt fails; 0 for none.")
def set_(
    as_json: bool,
    name: str,
    sources: tuple[str, ...],
    all_sources: bool,
    entities: tuple[str, ...],
    all_entities: bool,
    all_streams: bool,
    retries: int | None,
    cron: str | None,
    zone: str | None,
    timeout: float | None,
    **options: Any,
) -> None:
    """Change what is given of a schedule; the rest stays."""
    from syncline import schedules

    with connected() as (project, connection):
        _check_entities(project, connection, entities)
        known = schedules.get_schedule(connection, name)
        if all_streams:
            known["options"].pop("streams", None)
        schedules.set_schedule(
            connection,
            name,
            cron=cron,
            zone=zone,
            sources=_chosen(sources, is_all=all_sources),
            entities=_chosen(entities, is_all=all_entities),
            options=_merge(known["options"], options),
            max_attempts=None if retries is None else 1 + retries,
            timeout=timeout,
        )
        _show(connection, name, as_json=as_json)


@command(name="list", epilog=example("syncline schedule list"))
def list_(as_json: bool) -> None:
    """List schedules: next run, last run, who fires them."""
    from syncline import schedules
    from syncline.report import rows_table

    with connected() as (_, connection):
        rows = schedules.list_schedules(connection)
    if as_json:
        print_json({"schedules": [_to_object(row) for row in rows]})
        return
    headings = {
        "name": "schedule",
        "cron": "cron",
        "zone": "zone",
        "sources_shown": "sources",
        "next_shown": "next run (UTC)",
        "last_run": "last run",
        "last_status": "status",
        "fired_shown": "fired by",
        "missed_shown": "missed",
    }
    shown = [row | _texts(row) for row in rows]
    screen = console()
    screen.print(rows_table(shown, headings) if rows else "no schedules: `syncline schedule create`")
    for row in rows:
        if row["last_error"]:
            screen.print(f"{row['name']} cannot be fired: {row['last_error']}", markup=False, highlight=False)


@command(name="pause", epilog=example("syncline schedule pause nightly"))
@_name
def pause(as_json: bool, name: str) -> None:
    """Fire a schedule no more until it is resumed."""
    from syncline import schedules

    with connected() as (_, connection):
        schedules.pause_schedule(connection, name)
        _show(connection, name, as_json=as_json)


@command(name="resume", epilog=example("syncline schedule resume nightly"))
@_name
def resume(as_json: bool, name: str) -> None:
    """Fire a paused schedule again, from its next time on."""
    from syncline import schedules

    with connected() as (_, connection):
        schedules.resume_schedule(connection, name)
        _show(connection, name, as_json=as_json)


@command(name="delete", epilog=example("syncline schedule delete nightly"))
@_name
def delete(as_json: bool, name: str) -> None:
    """Delete a schedule; its runs stay."""
    from syncline import schedules

    with connected() as (_, connection):
        schedules.delete_schedule(connection, name)
    if as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"{name} is deleted")


@command(name="trigger", epilog=example("syncline schedule trigger nightly"))
@_name
def trigger(as_json: bool, name: str) -> None:
    """Put a schedule's run in the queue now."""
    from syncline import schedules

    with connected() as (_, connection):
        run_id = schedules.trigger_schedule(connection, name, "cli", user_name())
    if as_json:
        print_json({"run_id": run_id})
    else:
        click.echo(f"run {run_id} is in the queue; a worker takes it")


@command(name="sync", epilog=example("syncline schedule sync"))
def sync(as_json: bool) -> None:
    """Make pg_cron's jobs agree with the schedules."""
    from syncline import schedules

    with connected() as (_, connection):
        done = schedules.sync_schedules(connection)
    if as_json:
        print_json({"done": done})
        return
    for name, what in done.items():
        click.echo(f"{name}: {what}")
    if not done:
        click.echo("all agree")


for _command in (list_, create, set_, pause, resume, delete, trigger, sync):
    schedule.add_command(_command)


def _check_entities(project: Project, connection: Connection, entities: Iterable[str]) -> None:
    from syncline import control
    from syncline.config import entity_names, model_names

    known = entity_names(project.root) | (control.known_entities(connection) & model_names(project.root))
    unknown = sorted(set(entities) - known)
    if unknown:
        shown = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(
            f"there is no entity named {unknown[0]!r}",
            f"An entity is a model with materialized='versioned'. Known here: {shown}.",
        )


def _chosen(names: tuple[str, ...], *, is_all: bool) -> tuple[str, ...] | None:
    """Return what is to be set: none for all; None where it stays."""
    if names and is_all:
        raise click.UsageError("name some, or take all: not both")
    return names if names or is_all else None


def _merge(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's options with what was given; what is off by default is left out."""
    merged = dict(options)
    if given["streams"]:
        merged["streams"] = sorted(set(given["streams"]))
    for name in ("dry_run", "full_refresh"):
        if given[name] is not None:
            merged[name] = given[name]
    return {name: value for name, value in merged.items() if value is not False}


def _show(connection: Connection, name: str, *, as_json: bool) -> None:
    from syncline import schedules

    row = schedules.get_schedule(connection, name)
    if as_json:
        print_json(_to_object(row))
        return
    texts = _texts(row)
    if row["is_paused"]:
        click.echo(f"{name} is paused")
    else:
        click.echo(f"{name}: next run at {texts['next_shown']} UTC, fired by {texts['fired_shown']}")


def _to_object(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row for JSON: a time span in seconds."""
    return {**row, "timeout": row["timeout"].total_seconds() if row["timeout"] else None}


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    next_at = row["next_at"].strftime("%Y-%m-%d %H:%M") if row["next_at"] else "never"
    return {
        "sources_shown": ", ".join(row["sources"]) or "all",
        "next_shown": "paused" if row["is_paused"] else next_at,
        "fired_shown": "pg_cron" if row["fired_by"] == "pg_cron" else f"workers: {row['reason']}",
        "missed_shown": str(row["missed"] or ""),
    }
