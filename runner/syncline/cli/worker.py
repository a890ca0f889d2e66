"""Commands of the queue: the worker, and cancelling a run."""

from __future__ import annotations

import sys

import click

from syncline.cli.context import command, connected, database, example, print_json, read_project


@command(epilog=example("syncline worker --processes 2"))
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="How many runs at once.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds that a run may go on after SIGTERM, before it is handed back to the queue.",
)
@click.option("--burst", is_flag=True, help="Work what is queued, then end.")
@click.option("--supervised", is_flag=True, hidden=True)
def worker(
    as_json: bool, sources: tuple[str, ...], processes: int, grace: float, burst: bool, supervised: bool
) -> None:
    """Work the runs in the queue: those of all sources, or only those of the sources named."""
    from syncline import logs, telemetry
    from syncline.supervisor import Supervisor
    from syncline.worker import Worker, WorkerOptions, stop_with_input

    project = read_project()
    logs.configure(as_json=as_json or None, mask=project.mask, environment=project.environment)
    if processes > 1:
        flags = ["--json"] * as_json + ["--burst"] * burst
        arguments = ["worker", *sources, "--grace", str(grace), *flags, "--supervised"]
        sys.exit(Supervisor(arguments, processes, is_burst=burst).run())
    if supervised:
        stop_with_input()
    telemetry.configure("syncline worker")
    Worker(project.root, database(project), WorkerOptions(list(sources) or None, grace, burst)).run()


@command(epilog=example("syncline cancel 42"))
@click.argument("run_id", type=int, metavar="RUN")
def cancel(as_json: bool, run_id: int) -> None:
    """Cancel a run: one that waits at once, one that is worked as soon as its worker has stopped."""
    from syncline import control
    from syncline.paths import user_name

    with connected() as (_, connection):
        status = control.cancel_run(connection, run_id, user_name())
    if as_json:
        print_json({"run_id": run_id, "status": status})
    else:
        click.echo(f"run {run_id} is cancelled" if status == "cancelled" else f"run {run_id} was told to stop")
