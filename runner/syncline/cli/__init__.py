"""The command line. Importing it is cheap: each command imports what it needs when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from syncline import __version__

# In the order of use; the module that each lives in is imported only when it is called or asked for help.
_COMMANDS = {
    "init": "project",
    "discover": "discovery",
    "adopt": "discovery",
    "doctor": "project",
    "migrate": "project",
    "run": "runs",
    "load": "runs",
    "build": "runs",
    "publish": "runs",
    "rollback": "runs",
    "verify": "runs",
    "prune": "runs",
    "reset-cursor": "runs",
    "worker": "worker",
    "cancel": "worker",
    "serve": "serve",
    "diff": "reports",
    "status": "reports",
    "runs": "reports",
    "errors": "errors",
    "conflicts": "conflicts",
    "history": "history",
    "lineage": "lineage",
    "references": "references",
    "schedule": "schedules",
    "trigger": "trigger",
    "setup": "setup",
    "token": "tokens",
    "alerts": "alerts",
    "dsn": "database",
    "psql": "database",
    "stop": "database",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f"syncline.cli.{_COMMANDS[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


_SUMMARIES = {
    "init": "Make a new project, or one of the examples.",
    "discover": "Look at a live source; write its streams and models.",
    "adopt": "Start an entity from a table of the database.",
    "doctor": "Say what is wrong and how to mend it.",
    "migrate": "Bring the control schema, stream tables and views up to date.",
    "run": "Load, build, check and publish.",
    "load": "Only load: fetch streams into raw tables.",
    "build": "Only build and check: make candidates from what is loaded.",
    "publish": "Publish the candidates that are checked; lift holds.",
    "rollback": "Take back what the last publishing run swapped, and hold it.",
    "verify": "Prove that delta holds the keys on which the versions differ.",
    "prune": "Delete revisions that nothing needs any more.",
    "reset-cursor": "Make a stream's next increment start from the beginning.",
    "worker": "Work the runs in the queue.",
    "cancel": "Cancel a run that waits or is at work.",
    "serve": "Serve the HTTP API.",
    "diff": "Show row by row what would change, or what changed last.",
    "status": "Show entities and streams: what is published, what waits.",
    "runs": "List the newest runs.",
    "errors": "List the records and values that did not fit; try them again.",
    "conflicts": "List and decide what sources disagree on; override values.",
    "history": "Show what became of a row, and what changed last.",
    "lineage": "Say where the value of a field came from, and why.",
    "references": "List the internal ids of records elsewhere.",
    "schedule": "Run on a schedule: make, list and change schedules.",
    "trigger": "Ask a Syncline elsewhere, through its API, for a run.",
    "setup": "Check, migrate, make the schedule, work a first run.",
    "token": "Make, list and revoke tokens of the API.",
    "alerts": "Show what is wrong at the moment; try who is told.",
    "dsn": "Print the database's connection string.",
    "psql": "Open psql on the database.",
    "stop": "Stop the embedded Postgres server.",
}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="syncline")
def main() -> None:
    """Keep a Postgres database in step with other systems.

    Commands work on the project in the working directory, or above it. Exit codes: 0 done, 1 the run failed,
    2 wrong usage or configuration, 3 refused by a guard.
    """
