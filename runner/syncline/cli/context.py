"""What every command shares: the project, its database, output, and how errors end a command."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

import click

from syncline.errors import ConfigurationError, SynclineError

if TYPE_CHECKING:
    from rich.console import Console

    from syncline.config import Project
    from syncline.db import Connection

F = TypeVar("F", bound=Callable[..., Any])


def command(**settings: Any) -> Callable[[F], click.Command]:
    """Make a function a command with `--json`, whose SynclineErrors go to stderr with their exit codes."""

    def decorate(function: F) -> click.Command:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            try:
                return function(*arguments, **options)
            except SynclineError as error:
                print_error(error.message, error.hint)
                sys.exit(error.exit_code)
            except KeyboardInterrupt:
                print_error("interrupted", "Run again: what was loaded is kept.")
                sys.exit(1)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                sys.exit(0)

        with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(wrapped)
        made: click.Command = click.command(**settings)(with_json)
        return made

    return decorate


class ListGroup(click.Group):
    """Commands about one kind of thing; without a command, `list`, whose options may follow at once."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_option = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["list", *args] if is_option or not args else args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands["list"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def example(text: str) -> str:
    """Return an epilog that shows how a command is used."""
    return f"\b\nExample:\n  {text}"


def print_error(message: str, hint: str | None) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(click.style("  try: ", fg="yellow") + hint, err=True)


def print_json(content: Any) -> None:
    click.echo(json.dumps(content, default=_to_json, ensure_ascii=False))


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def read_project() -> Project:
    """Return the project in the working directory or above it."""
    from syncline.config import read_project as read
    from syncline.paths import find_project

    return read(find_project())


def database(project: Project) -> str:
    """Return the connection string: DATABASE_URL, or the embedded server's, which is started where needed."""
    if project.database_url:
        return project.database_url
    if project.target == "prod":
        raise ConfigurationError(
            "SYNCLINE_TARGET is prod, and DATABASE_URL is not set",
            "Set it in the environment or in .env; only development falls back to an embedded database.",
        )
    from syncline import embedded

    return embedded.ensure_running(project.root)


@contextmanager
def connected(*, migrated: bool = True) -> Iterator[tuple[Project, Connection]]:
    """Yield the project and a connection to its database, migrated where that was asked for."""
    from syncline import db
    from syncline.migrate import is_up_to_date, migrate

    project = read_project()
    with db.connect(database(project)) as connection:
        if migrated and not is_up_to_date(connection, project):
            migrate(connection, project)
        yield project, connection


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    terminal = Console(stderr=stderr)
    # Elsewhere than on a terminal, a table keeps its lines whole.
    return terminal if terminal.is_terminal else Console(stderr=stderr, width=200, no_color=True)
