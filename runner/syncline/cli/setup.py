"""The command that takes a project from configured to running by itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from syncline.cli.context import (
    command,
    console,
    database,
    example,
    print_error,
    print_json,
    read_project,
)
from syncline.cli.project import print_findings
from syncline.errors import ConfigurationError
from syncline.paths import user_name

if TYPE_CHECKING:
    from syncline.config import Project
    from syncline.db import Connection


@command(epilog=example("syncline setup --every 6h"))
@click.option("--every", metavar="TIME", help="How often all sources run: 15m, 6h, 1d. At first 6h.")
@click.option("--cron", metavar="EXPRESSION", help="When all sources run, as a cron expression, in UTC.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def setup(as_json: bool, every: str | None, cron: str | None, yes: bool) -> None:
    """Check the settings, migrate, make the schedule `default`, and work a first run. May be repeated."""
    from syncline import db
    from syncline.setup import count_workers, cron_of, make_schedule, needs_first_run, request_first_run

    if every and cron:
        raise click.UsageError("--every and --cron do not go together")
    wanted = cron_of(every) if every else cron
    project = read_project()
    dsn = database(project)
    _check(project, dsn, as_json=as_json)
    _confirm(yes)
    user = user_name()
    with db.connect(dsn) as connection:
        applied = _migrate(connection, project)
        scheduled = make_schedule(connection, wanted, user)
        workers = count_workers(connection)
        is_first = needs_first_run(connection)
        requested = request_first_run(connection, user) if is_first and workers else None
    if not as_json:
        click.echo(f"control schema: {'brought up to date' if applied else 'up to date'}")
        click.echo(f"schedule default: {scheduled.done}, {scheduled.cron} in UTC, fired by {scheduled.fired_by}")
    report = _work_first_run(project, dsn, as_json=as_json) if is_first and not workers else None
    run_id = report["run_id"] if report else requested
    if as_json:
        schedule = {"name": "default", "done": scheduled.done, "cron": scheduled.cron, "fired_by": scheduled.fired_by}
        print_json({"migrated": applied, "schedule": schedule, "workers": workers, "run_id": run_id, "run": report})
    else:
        _print_next(project, workers, requested, scheduled.fired_by, is_first=is_first)
    for error in report["errors"] if report else ():
        print_error(error["message"], error.get("hint"))
        sys.exit(error.get("exit_code", 1))


def _check(project: Project, dsn: str, *, as_json: bool) -> None:
    """Print what the doctor finds; what is wrong ends the command before it has changed anything."""
    from syncline.doctor import examine

    findings = list(examine(project, lambda: dsn))
    wrong = [finding for finding in findings if not finding.is_well]
    if as_json and wrong:
        print_json({"findings": [{"what": f.what, "detail": f.detail, "hint": f.hint} for f in wrong]})
    elif not as_json:
        print_findings(findings)
    if wrong:
        print_error("the set-up has not begun", "Mend what is marked above, then run it again.")
        sys.exit(2)


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is here to ask", "Say --yes.")
    if not click.confirm(
        "Migrate, make the schedule and work a first run where there was none?", default=True, err=True
    ):
        raise ConfigurationError("nothing was changed")


def _migrate(connection: Connection, project: Project) -> bool:
    from syncline.migrate import is_up_to_date, migrate

    if is_up_to_date(connection, project):
        return False
    return bool(migrate(connection, project))


def _work_first_run(project: Project, dsn: str, *, as_json: bool) -> dict[str, Any]:
    """Work a run of all sources here, since no worker would."""
    from syncline.pipeline import Engine, run
    from syncline.report import LiveWatcher, PlainWatcher, SilentWatcher, print_run
    from syncline.run_options import RunOptions

    screen = console(stderr=as_json)
    watcher: Any = SilentWatcher(screen) if as_json else (LiveWatcher if screen.is_terminal else PlainWatcher)(screen)
    if not as_json:
        click.echo("no worker is running: the first run is worked here")
    with Engine(project, dsn) as engine, watcher:
        report = run(engine, RunOptions(), watcher)
    if not as_json:
        print_run(screen, report)
    return report


def _print_next(project: Project, workers: int, requested: int | None, fired_by: str, *, is_first: bool) -> None:
    """Say what is still to be done by hand."""
    if requested is not None:
        click.echo(f"run {requested} was requested, for the worker: `syncline runs` shows it")
    elif not is_first:
        click.echo("a run has succeeded before: none was requested")
    steps = []
    if not workers:
        does = "works what pg_cron requests" if fired_by == "pg_cron" else "fires the schedule and works its runs"
        steps.append(f"`syncline worker`, as a service: it {does}")
    if not project.environment.get("SYNCLINE_ALERT_URLS"):
        steps.append("SYNCLINE_ALERT_URLS, so that somebody is told when a run fails")
    steps.append("`syncline doctor --production` says what else is missing")
    for step in steps:
        click.echo(f"next: {step}")
