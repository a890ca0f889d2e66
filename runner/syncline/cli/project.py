"""Commands for the project: making one, looking after it, bringing its database up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncline.cli.context import command, console, database, example, print_json, read_project
from syncline.errors import ConfigurationError

if TYPE_CHECKING:
    from syncline.doctor import Finding


@command(epilog=example("syncline init shop && cd shop && syncline doctor"))
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False), metavar="[DIR]")
@click.option("--example", "example_name", help="One of the examples, such as agency.")
@click.option("--upgrade", is_flag=True, help="Renew the engine's macros in the project that is there.")
def init(as_json: bool, folder: Path, example_name: str | None, upgrade: bool) -> None:
    """Make a new project in DIR, or one of the examples; or renew a project's macros."""
    from syncline.scaffold import create_project, upgrade_project

    if upgrade:
        if example_name:
            raise ConfigurationError("--upgrade and --example do not go together")
        renewed = upgrade_project(folder)
        if as_json:
            print_json({"upgraded": str(renewed)})
        else:
            click.echo(f"renewed {renewed}; now run `syncline migrate`")
        return
    files = create_project(folder, example_name)
    if as_json:
        print_json({"project": str(folder), "files": [str(file) for file in files]})
        return
    click.echo(f"made a project of {len(files)} files in {folder}")
    if example_name:
        click.echo(f"next: examples/{example_name}/README.md says how to run it")
    else:
        click.echo("next: declare a source in dbt_project/models/sources.yml, write a model, then `syncline run`")


@command(epilog=example("syncline doctor"))
@click.option("--production", "is_production", is_flag=True, help="Say what running by itself needs beyond that, too.")
def doctor(as_json: bool, is_production: bool) -> None:
    """Say what is wrong with configuration, connections and permissions, and how to mend it."""
    from syncline.doctor import examine

    project = read_project()
    findings = list(examine(project, lambda: database(project), is_production=is_production))
    if is_production:
        from syncline.production import examine as examine_production

        findings += examine_production(project)
    is_well = all(finding.is_well for finding in findings)
    if as_json:
        print_json(
            {
                "is_well": is_well,
                "findings": [
                    {"what": f.what, "is_well": f.is_well, "detail": f.detail, "hint": None if f.is_well else f.hint}
                    for f in findings
                ],
            }
        )
    else:
        print_findings(findings)
    if not is_well:
        sys.exit(2)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print what was looked at, and what to do where it is not well."""
    from rich.markup import escape

    screen = console()
    for finding in findings:
        mark = "[green]✓[/]" if finding.is_well else "[red]✗[/]"
        detail = f": {finding.detail}" if finding.detail else ""
        screen.print(mark, escape(f"{finding.what}{detail}"), highlight=False, soft_wrap=True)
        if not finding.is_well and finding.hint:
            screen.print(f"    try: {finding.hint}", highlight=False, markup=False, soft_wrap=True)


@command(epilog=example("syncline migrate"))
def migrate(as_json: bool) -> None:
    """Bring the control schema, stream tables and views up to date."""
    from syncline import db
    from syncline.migrate import migrate as apply

    project = read_project()
    with db.connect(database(project)) as connection:
        applied = apply(connection, project)
    if as_json:
        print_json({"migrations": applied.migrations, "functions": applied.functions, "streams": applied.streams})
    elif not applied:
        click.echo("up to date")
    else:
        for kind in ("migrations", "functions", "streams"):
            for name in getattr(applied, kind):
                click.echo(f"{kind.removesuffix('s')}: {name}")
