"""Commands for alerts: what is wrong at the moment, and whether messages arrive."""

from __future__ import annotations

import sys

import click

from syncline.cli.context import command, connected, console, example, print_error, print_json, read_project
from syncline.errors import ConfigurationError


@click.group(epilog=example("syncline alerts test"), context_settings={"help_option_names": ["-h", "--help"]})
def alerts() -> None:
    """Show what is wrong at the moment, and try the addresses that are told."""


@command(name="list", epilog=example("syncline alerts list"))
def list_(as_json: bool) -> None:
    """List the incidents that are open, oldest first. Workers open and close them."""
    from syncline.alerts import open_incidents
    from syncline.notices import headline
    from syncline.report import rows_table

    with connected() as (_, connection):
        rows = [dict(row) for row in open_incidents(connection)]
    if as_json:
        print_json({"incidents": rows})
        return
    for row in rows:
        row["what"] = headline(row["kind"], row["subject"], row["detail"])
    headings = {"what": "incident", "opened_at": "since (UTC)", "told_at": "told at (UTC)", "kind": "kind"}
    console().print(rows_table(rows, headings) if rows else "no incidents")


@command(name="test", epilog=example("syncline alerts test"))
def test(as_json: bool) -> None:
    """Send a test message to each address of SYNCLINE_ALERT_URLS; exit code 1 where one does not take it."""
    from syncline.alerts import send_test

    sent = send_test(read_project())
    if not sent:
        raise ConfigurationError(
            "SYNCLINE_ALERT_URLS is not set", "Set it in the environment or in .env: docs/how-to/alerts.md."
        )
    if as_json:
        print_json({"sent": {str(number): was_taken for number, was_taken in sent.items()}})
    else:
        for number, was_taken in sent.items():
            click.echo(f"address {number}: {'sent' if was_taken else 'failed'}")
    failed = [str(number) for number, was_taken in sent.items() if not was_taken]
    if failed:
        print_error(
            f"the message could not be sent to address {', '.join(failed)} of SYNCLINE_ALERT_URLS",
            "Check the address, and whether this machine may reach it.",
        )
        sys.exit(1)


alerts.add_command(list_)
alerts.add_command(test)
