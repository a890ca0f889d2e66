"""The command that serves the HTTP API."""

from __future__ import annotations

import click

from syncline.cli.context import command, database, example, print_json, read_project


@command(epilog=example("syncline serve --port 8000"))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 is any free one."
)
@click.option("--behind-tls", is_flag=True, help="A proxy in front takes care of TLS.")
@click.option(
    "--forwarded-allow-ips",
    metavar="ADDRESSES",
    help="Proxies whose X-Forwarded-For and -Proto are believed, separated by commas.",
)
def serve(as_json: bool, host: str, port: int, behind_tls: bool, forwarded_allow_ips: str | None) -> None:
    """Serve the HTTP API until it is told to stop."""
    import structlog

    from syncline import db, logs, telemetry, tokens
    from syncline.api.app import create_app
    from syncline.api.server import serve as listen
    from syncline.api.settings import check_exposure, read_settings
    from syncline.migrate import is_up_to_date, migrate

    project = read_project()
    settings = read_settings(project)
    dsn = database(project)
    with db.connect(dsn) as connection:
        if not is_up_to_date(connection, project):
            migrate(connection, project)
        has_tokens = tokens.has_live_token(connection)
    check_exposure(settings, host, has_tokens, behind_tls)
    is_json = logs.configure(as_json=as_json or None, mask=project.mask, environment=project.environment)
    telemetry.configure("syncline serve")

    def started(url: str) -> None:
        is_closed = not has_tokens and not settings.secret_key
        hint = "set SYNCLINE_SECRET_KEY, or `syncline token create NAME`"
        if as_json:
            print_json({"url": url})
        if is_json:
            log = structlog.get_logger("syncline.api")
            log.info("serve_start", url=url)
            if is_closed:
                log.warning("no_token", hint=hint)
            return
        click.echo(f"the API is at {url}/api/v1; Ctrl-C stops it")
        if is_closed:
            click.echo(f"there is no token yet: {hint}")

    listen(create_app(project, dsn, settings), host, port, forwarded_allow_ips=forwarded_allow_ips, started=started)
