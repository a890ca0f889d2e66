"""Finds the project that a command works on and the files that ship with Syncline, and names who runs it."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from syncline.errors import ConfigurationError

STATE_FOLDER = ".syncline"
"""Folder in the project for the embedded server and dbt's target; safe to delete, never committed."""


def bundle() -> Path:
    """Return the folder that holds `sql/`, `dbt_project/` and `examples/`: in the wheel, or the checkout."""
    package = Path(__file__).resolve().parent
    packed = package / "_bundle"
    return packed if packed.is_dir() else package.parent.parent


def find_project(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (the working directory) that has a `dbt_project.yml`.

    Raises ConfigurationError where there is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dbt_project.yml").is_file():
            return folder
    raise ConfigurationError(
        f"no dbt_project.yml in {start} or above it",
        "Run the command inside a project, or make one with `syncline init DIR`.",
    )


def state_folder(project: Path) -> Path:
    """Return the project's state folder, made where it is missing."""
    folder = project / STATE_FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def user_name() -> str:
    """Return the name of the system's user that runs this, or its number: a container's may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
