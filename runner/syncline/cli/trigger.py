"""The command that asks a Syncline elsewhere for a run."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from syncline.cli.context import command, console, example, print_error, print_json
from syncline.errors import ConfigurationError


@command(epilog=example("SYNCLINE_TOKEN=… syncline trigger https://sync.example.com --wait --source agency"))
@click.argument("urls", metavar="URL[,URL]...")
@click.option("--wait", is_flag=True, help="Follow the run to its end, and exit with its code.")
@click.option("--source", "sources", multiple=True, help="Only this source; may be given again.")
@click.option("--entity", "entities", multiple=True, help="Only this entity; may be given again.")
@click.option("--dry-run", is_flag=True, help="Publish nothing.")
@click.option("--full-refresh", is_flag=True, help="Load in full, and build from all records.")
@click.option("--triggered-by", help="Who asks, as the run's report shows it.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="A file that holds the token.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=3600,
    show_default=True,
    help="Seconds to wait for the run's end; outages of the API count.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.05),
    default=2,
    show_default=True,
    help="Seconds between two looks at the run.",
)
def trigger(
    as_json: bool,
    urls: str,
    wait: bool,
    token_file: Path | None,
    timeout: float,
    interval: float,
    **wanted: Any,
) -> None:
    """Ask the API at URL for a run; needs no project. Of several addresses, the first that answers is taken.

    The token comes from SYNCLINE_TOKEN, else from SYNCLINE_SECRET_KEY, or from a file; its role is operator.
    """
    from syncline.report import print_run
    from syncline.trigger import Client, Wanted, read_addresses

    def show(at: datetime, what: str) -> None:
        click.echo(f"{at:%Y-%m-%d %H:%M:%S}Z  {what}", err=as_json)

    with Client(read_addresses(urls), _token(token_file)) as client:
        run = client.trigger(Wanted(**wanted))
        click.echo(f"run {run.report['run_id']} at {run.url}", err=as_json)
        if wait:
            client.follow(run, show, interval=interval, timeout=timeout)
    if as_json:
        print_json(run.as_json())
    elif wait:
        print_run(console(), run.report)
    else:
        click.echo(f"it is {run.report['status']}; --wait follows it")
    if wait:
        _exit_as(run.report)


def _exit_as(report: dict[str, Any]) -> None:
    """Exit as `run` would have there."""
    for error in report.get("errors") or []:
        print_error(error["message"], error.get("hint"))
        sys.exit(error.get("exit_code") or 1)
    if report["status"] != "succeeded":
        sys.exit(1)


def _token(file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(f"the token's file {file} cannot be read", "Check its name and rights.") from None
    token = os.environ.get("SYNCLINE_TOKEN") or os.environ.get("SYNCLINE_SECRET_KEY")
    if not token:
        raise ConfigurationError(
            "there is no token", "Set SYNCLINE_TOKEN to one with the role operator: `syncline token create`."
        )
    return token.strip()
