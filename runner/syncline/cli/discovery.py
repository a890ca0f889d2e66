"""Commands that start a project from what is there: a live source, a table of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from syncline.cli.context import command, console, database, example, print_json, read_project


@command(epilog=example("syncline discover shop --stream orders\n  syncline run shop"))
@click.argument("source")
@click.option("--stream", "streams", multiple=True, help="Only this stream; may be given again.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--diff", "is_diff", is_flag=True, help="Compare what the source has now with what the project declares.")
@click.option("--connector", help="Declare the source too, with this connector.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of it; may be given again.")
def discover(
    as_json: bool,
    source: str,
    streams: tuple[str, ...],
    dry_run: bool,
    is_diff: bool,
    connector: str | None,
    settings: tuple[str, ...],
) -> None:
    """Look at a live source and write its streams and a model for each; what is there is kept."""
    from syncline.discovery.finding import look
    from syncline.discovery.plan import declare, new_source, plan

    project = read_project()
    if settings and connector is None:
        raise click.UsageError("--set belongs to --connector")
    declared = new_source(project, source, connector, settings) if connector else project.source(source)
    findings = look(project, declared, streams)
    if is_diff:
        _print_drift(as_json, source, project, declared, findings)
        return
    planned = plan(project, declared, findings)
    file, text = declare(project, declared, findings, is_new=connector is not None)
    there = project.root / file
    files = planned.files
    if not there.exists() or there.read_text(encoding="utf-8") != text:
        # First: a model whose stream is not declared would keep dbt from reading the project.
        files = {file: text, **files}
    if not dry_run:
        for path, content in files.items():
            (project.root / path).parent.mkdir(parents=True, exist_ok=True)
            (project.root / path).write_text(content, encoding="utf-8")
    _print_found(as_json, source, findings, planned, files, dry_run=dry_run)


@command(epilog=example("syncline adopt warehouse.orders --entity orders"))
@click.argument("table")
@click.option("--entity", required=True, help="The entity that starts from the table's rows.")
@click.option("--key", multiple=True, metavar="COLUMN", help="A column that holds the stream's key; may be repeated.")
def adopt(as_json: bool, table: str, entity: str, key: tuple[str, ...]) -> None:
    """Start an entity from the rows of a table that is there, so that the first run shows what differs."""
    from syncline.adopt import adopt as start
    from syncline.pipeline import Engine

    project = read_project()
    with Engine(project, database(project)) as engine:
        adopted = start(engine, table, entity, key)
    if as_json:
        print_json(adopted)
        return
    click.echo(f"{entity}: {adopted['rows']:,} rows of {table} are its version 1, by {', '.join(adopted['key'])}")
    if adopted["missing"]:
        click.echo(f"null, for the table lacks them: {', '.join(adopted['missing'])}")
    if adopted["ignored"]:
        click.echo(f"left out, for the model lacks them: {', '.join(adopted['ignored'])}")
    if adopted["errors"]:
        click.echo(f"{adopted['errors']:,} values did not fit: `syncline errors --entity {entity}`")
    if adopted["loaded"] is not None:
        click.echo(f"{adopted['loaded']:,} of the rows have a record that is loaded")
    click.echo(f"next: `syncline run --dry-run`, then `syncline diff {entity}` shows what the source has otherwise")


def _print_found(
    as_json: bool, source: str, findings: Any, planned: Any, files: dict[Path, str], *, dry_run: bool
) -> None:
    from syncline.discovery.finding import wanted_of
    from syncline.report import rows_table

    rows: list[dict[str, Any]] = []
    for finding in wanted_of(findings):
        shape = finding.shape
        entities = [entity for entity in planned.entities if entity.stream == finding.name]
        rows.append(
            {
                "stream": finding.name,
                "is_new": finding.is_new,
                "records": finding.records,
                "key": list(shape.key) if shape else [],
                "fields": len(shape.columns) + len(shape.nested) if shape else 0,
                "skipped": list(shape.skipped) if shape else [],
                "written": [entity.name for entity in entities if entity.text is not None],
                "kept": [entity.name for entity in entities if entity.text is None],
                "problem": finding.problem,
            }
        )
    if as_json:
        listed: Any = {str(path): text for path, text in files.items()} if dry_run else [str(path) for path in files]
        print_json({"source": source, "streams": rows, "files": listed})
        return
    screen = console()
    if dry_run:
        for path, text in files.items():
            screen.print(f"[bold]{path}[/]", highlight=False)
            screen.print(text, markup=False, highlight=False, soft_wrap=True)
    for row in rows:
        row["key"] = ", ".join(row["key"]) or ("" if row["fields"] == 0 else "none: the content")
        parts = [f"{'would write' if dry_run else 'wrote'} {', '.join(row['written'])}"] if row["written"] else []
        parts += [f"kept {', '.join(row['kept'])}"] if row["kept"] else []
        parts += [row["problem"]] if row["problem"] else []
        row["models"] = "; ".join(parts) or "none: no records to tell its fields by"
    headings = {"stream": "stream", "records": "sampled", "key": "key", "fields": "fields", "models": "models"}
    screen.print(rows_table(rows, headings) if rows else f"{source} has no streams")
    for row in rows:
        if row["skipped"]:
            screen.print(
                f"{row['stream']}: no path can name {', '.join(row['skipped'])}", highlight=False, markup=False
            )
    if dry_run:
        following = f"`syncline discover {source}` writes this"
    elif any(row["written"] for row in rows):
        following = f"look through the models, then `syncline run {source} --dry-run`"
    else:
        following = f"`syncline discover {source} --diff` shows what changed in the source"
    screen.print(f"[dim]next: {following}[/]", highlight=False)


def _print_drift(as_json: bool, source: str, project: Any, declared: Any, findings: Any) -> None:
    from dataclasses import asdict

    from syncline.discovery.drift import compare

    drifts = compare(project, declared, findings)
    if as_json:
        print_json({"source": source, "drift": bool(drifts), "differences": [asdict(drift) for drift in drifts]})
        return
    screen = console()
    said = {
        "new_stream": "is not declared",
        "gone_stream": "cannot be read any more",
        "new_field": "is read by no model ({found})",
        "gone_field": "is in no record of the sample; the model takes it as {declared}",
        "type": "is {found}; the model takes it as {declared}",
    }
    for drift in drifts:
        name = f"{drift.stream}.{drift.path}" if drift.path else drift.stream
        text = said[drift.change].format(found=drift.found, declared=drift.declared)
        screen.print(f"{name} {text}", highlight=False, markup=False)
    if not drifts:
        screen.print(f"{source} is as the project has it", highlight=False)
