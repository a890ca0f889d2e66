"""Commands for the API's tokens."""

from __future__ import annotations

from typing import Any

import click

from syncline.cli.context import command, connected, console, example, print_json
from syncline.paths import user_name


@click.group(
    epilog=example("syncline token create dashboard --role viewer"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def token() -> None:
    """Make, list and revoke tokens of the API."""


@command(epilog=example("syncline token create dashboard --role viewer --expires 90d"))
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    required=True,
    help="viewer reads; operator also runs and publishes; admin also sets guards aside.",
)
@click.option("--expires", metavar="DURATION", help="When it ends: 90d, 12h. Without it, never.")
@click.option("--replace", metavar="OLD", help="The token that this one takes over from.")
@click.option("--overlap", metavar="DURATION", default="24h", show_default=True, help="How long OLD is still let in.")
def create(as_json: bool, name: str, role: Any, expires: str | None, replace: str | None, overlap: str) -> None:
    """Make a token and print it, this once: only its digest is kept."""
    from syncline.config import parse_duration
    from syncline.tokens import create_token

    expires_in, lasts = parse_duration(expires) if expires else None, parse_duration(overlap)
    with connected() as (_, connection):
        made = create_token(
            connection, name, role, expires_in=expires_in, replaces=replace, overlap=lasts, created_by=user_name()
        )
    if as_json:
        print_json(
            {
                "token": made.token,
                "token_id": made.token_id,
                "name": name,
                "role": role,
                "expires_at": made.expires_at,
                "replaced": replace,
                "replaced_until": made.replaced_until,
            }
        )
        return
    click.echo(made.token)
    click.echo("It is not shown again: keep it where secrets are kept.", err=True)
    if made.replaced_until:
        click.echo(f"{replace} is let in until {made.replaced_until:%Y-%m-%d %H:%M} UTC.", err=True)


@command(name="list", epilog=example("syncline token list"))
def list_(as_json: bool) -> None:
    """List all tokens, and warn of those that expire within 14 days."""
    from syncline.report import rows_table
    from syncline.tokens import list_tokens

    with connected() as (_, connection):
        rows = list_tokens(connection)
    if as_json:
        print_json({"tokens": rows})
        return
    headings = {
        "name": "token",
        "role": "role",
        "state": "state",
        "created_at": "created at (UTC)",
        "created_by": "by",
        "expires_at": "expires at (UTC)",
        "last_used_at": "last used at (UTC)",
    }
    console().print(rows_table(rows, headings) if rows else "no tokens: `syncline token create`")
    for row in rows:
        if row["is_expiring"]:
            click.echo(
                f"{row['name']} expires at {row['expires_at']:%Y-%m-%d %H:%M} UTC: "
                f"`syncline token create NEW --role {row['role']} --replace {row['name']}`",
                err=True,
            )


@command(epilog=example("syncline token revoke dashboard"))
@click.argument("name")
def revoke(as_json: bool, name: str) -> None:
    """Revoke a token: it is refused within five seconds, everywhere."""
    from syncline.tokens import revoke_token

    with connected() as (_, connection):
        token_id = revoke_token(connection, name, user_name())
    if as_json:
        print_json({"revoked": name, "token_id": token_id})
    else:
        click.echo(f"revoked: {name}")


for _command in (create, list_, revoke):
    token.add_command(_command)
