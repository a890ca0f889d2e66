"""Commands that change what is there: run and its steps one by one, the way back, the proof, the broom."""

from __future__ import annotations

import sys
from typing import Any

import click

from syncline.cli.context import command, connected, console, database, example, print_error, print_json, read_project


def _work(as_json: bool, *, sample: int | None = None, **options: Any) -> None:
    """Run with these options, show it, and exit with the run's code.

    With `sample` what it would change is shown too: as JSON every row, else so many of each kind.
    """
    from syncline import telemetry
    from syncline.connectors import check_settings
    from syncline.pipeline import Engine
    from syncline.pipeline import run as work
    from syncline.preview import Preview, in_pieces
    from syncline.report import LiveWatcher, PlainWatcher, SilentWatcher, print_preview, print_run
    from syncline.run_options import RunOptions

    project = read_project()
    for source in project.sources.values():
        check_settings(source)
    telemetry.configure("syncline run")
    screen = console(stderr=as_json)
    watcher: Any = SilentWatcher(screen) if as_json else (LiveWatcher if screen.is_terminal else PlainWatcher)(screen)
    dsn = database(project)
    with Preview(dsn, None if as_json else sample) as preview:
        look = preview.look if sample is not None else None
        with Engine(project, dsn) as engine, watcher:
            report = work(engine, RunOptions(**options), watcher, look)
        if look is not None and preview.candidates is None:
            # Another process worked the identical request, or nothing came to a build.
            look(report["run_id"])
        if as_json:
            for piece in in_pieces(preview.lines()):
                click.echo(piece, nl=False)
        else:
            print_preview(screen, preview.candidates or [], report)
    if as_json:
        print_json(report)
    else:
        print_run(screen, report)
    for error in report["errors"]:
        print_error(error["message"], error.get("hint"))
        sys.exit(error.get("exit_code", 1))


_sources = click.argument("sources", nargs=-1, metavar="[SOURCE]...")
_stream = click.option("--stream", "streams", multiple=True, help="Only this stream; may be given again.")
_entity = click.option("--entity", "entities", multiple=True, help="Only this entity; may be given again.")
_wait = click.option(
    "--wait-timeout", type=float, default=600, show_default=True, help="Seconds to wait for a run in the way."
)
_mass_delete = click.option("--allow-mass-delete", is_flag=True, help="Let an empty or much smaller answer through.")
_force = click.option(
    "--force-overwrite", is_flag=True, help="Fill reference fields from their sources again, as for new rows."
)
_refresh = click.option("--full-refresh", is_flag=True, help="Load in full, and build from all records.")


@command(epilog=example("syncline run agency --dry-run"))
@_sources
@_entity
@_stream
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would change, publish nothing; `syncline publish` publishes what was shown.",
)
@click.option("--limit", type=click.IntRange(1), help="A trial with so many records a stream; never published.")
@click.option(
    "--sample",
    type=click.IntRange(0),
    help="Rows of each kind that a dry run or a trial shows, 5 by default; --json prints all.",
)
@click.option(
    "--publish",
    type=click.Choice(["together", "each"]),
    help="All entities or none, or each that neither failed nor depends on one that did.",
)
@_refresh
@_force
@_mass_delete
@_wait
def run(as_json: bool, sources: tuple[str, ...], sample: int | None, **options: Any) -> None:
    """Load, build, check and publish what the sources bring: all of them, or those named."""
    shows = options["dry_run"] or options["limit"] is not None
    if sample is not None and not shows:
        raise click.UsageError("--sample belongs to --dry-run and --limit")
    _work(as_json, sample=(5 if sample is None else sample) if shows else None, sources=sources, **options)


@command(epilog=example("syncline load agency talents"))
@click.argument("source", required=False)
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@click.option("--limit", type=click.IntRange(1), help="A trial with so many records a stream.")
@click.option("--from", "since", metavar="VALUE", help="Load again what changed from this value of the cursor on.")
@click.option("--to", "until", metavar="VALUE", help="Load again what changed up to this value of the cursor.")
@click.option("--stdin", "is_push", is_flag=True, help="Take records from standard input: a JSON array or JSON lines.")
@click.option("--full", is_flag=True, help="With --stdin: these are all records there are, and the others are gone.")
@_refresh
@_mass_delete
@_wait
def load(as_json: bool, source: str | None, is_push: bool, full: bool, **options: Any) -> None:
    """Only load: fetch streams into raw tables, or take the records that another system sends."""
    from syncline.connectors.push import Push

    if is_push and len(options["streams"]) != 1:
        raise click.UsageError("--stdin takes the records of one stream: syncline load SOURCE STREAM --stdin")
    if full and not is_push:
        raise click.UsageError("--full belongs to --stdin; a fetched stream takes --full-refresh")
    push = Push(sys.stdin.buffer.read, is_full=full) if is_push else None
    _work(as_json, sources=(source,) if source else (), steps=("load",), push=push, **options)


@command(epilog=example("syncline build --entity talents"))
@_entity
@_refresh
@_force
@_mass_delete
@_wait
def build(as_json: bool, **options: Any) -> None:
    """Only build and check: make candidates from what is loaded."""
    _work(as_json, steps=("build", "check"), **options)


@command(epilog=example("syncline publish"))
@click.argument("entities", nargs=-1, metavar="[ENTITY]...")
def publish(as_json: bool, entities: tuple[str, ...]) -> None:
    """Publish the candidates that are checked, exactly as they were shown, and lift holds."""
    from syncline.pipeline import Engine, publish_candidates

    with connected() as (project, connection), Engine(project, database(project)) as engine:
        published = publish_candidates(engine, connection, list(entities) or None)
    if as_json:
        print_json({"published": published})
    elif published:
        click.echo(f"published: {', '.join(published)}")
    else:
        click.echo("holds lifted; there was no candidate: the next run publishes again")


@command(epilog=example("syncline rollback talents"))
@click.argument("entity", required=False)
def rollback(as_json: bool, entity: str | None) -> None:
    """Take back what the last publishing run swapped, or one entity with those that read it, and hold it."""
    from syncline.publish import rollback as take_back

    with connected() as (_, connection):
        entities = take_back(connection, entity)
    if as_json:
        print_json({"rolled_back": entities})
    else:
        click.echo(f"back to what was published before: {', '.join(entities)}")
        click.echo("held: runs build and check them, and publish nothing, until `syncline publish`")


@command(epilog=example("syncline verify talents"))
@click.argument("entities", nargs=-1, metavar="[ENTITY]...")
@click.option("--raw", is_flag=True, help="Compare what is published with a whole evaluation of the records, instead.")
def verify(as_json: bool, entities: tuple[str, ...], raw: bool) -> None:
    """Prove on the live database that delta holds exactly the keys on which the two versions differ."""
    from syncline import db

    with connected() as (_, connection):
        names = list(entities) or [
            row["entity"] for row in connection.execute("select entity from syncline.entity_status order by entity")
        ]
        found = {name: db.call(connection, "verify_raw" if raw else "verify", name) for name in names}
    problems = {name: rows for name, rows in found.items() if rows}
    if as_json:
        print_json({"verified": names, "problems": problems})
    else:
        for name in names:
            click.echo(f"{name}: {'ok' if name not in problems else f'{len(problems[name])} problems'}")
            for row in problems.get(name, [])[:5]:
                click.echo(f"  {row['problem']}: {row['_key'] or ''}")
    if problems:
        what = "current" if raw else "delta"
        print_error(
            f"{what} is wrong for {', '.join(problems)}", "Run `syncline run --full-refresh`, and report this defect."
        )
        sys.exit(1)


@command(epilog=example("syncline prune"))
@click.option("--references", metavar="AGE", help="External references, too, whose record has been gone so long: 1y.")
def prune(as_json: bool, references: str | None) -> None:
    """Delete what is too old: revisions by their `keep`, log events, closed row errors, changes, closed conflicts."""
    from syncline import control, db, logs
    from syncline.config import parse_duration

    unseen = parse_duration(references) if references else None

    with connected() as (project, connection):
        pruned = {
            stream.label: control.prune_stream(connection, stream.source, stream.name, int(stream.common.keep))
            for source in project.sources.values()
            for stream in source.streams.values()
            if stream.common.keep != "all"
        }
        counts = logs.prune(connection, project)
        forgotten = db.call_value(connection, "prune_references", unseen) if unseen is not None else 0
    if as_json:
        print_json({"pruned": pruned, **counts, "references": forgotten})
    else:
        revisions = f"{sum(pruned.values()):,} revisions in {len(pruned)} streams"
        names = {"row_errors": "closed row errors", "conflicts": "closed conflicts"}
        old = [f"{count:,} {names.get(name, name.replace('_', ' '))}" for name, count in counts.items()]
        click.echo(f"pruned {', '.join([revisions, *old])}")
        if unseen is not None:
            click.echo(f"forgot {forgotten:,} external references")


@command(name="reset-cursor", epilog=example("syncline reset-cursor agency talents"))
@click.argument("source")
@click.argument("stream")
def reset_cursor(as_json: bool, source: str, stream: str) -> None:
    """Make the stream's next increment start from the beginning."""
    from syncline import db

    with connected() as (_, connection):
        db.call(connection, "reset_cursor", source, stream)
    if as_json:
        print_json({"reset": f"{source}.{stream}"})
    else:
        click.echo(f"{source}.{stream} starts from the beginning next time")
