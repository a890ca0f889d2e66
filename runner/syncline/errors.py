"""The errors Syncline raises on purpose, each with the exit code it ends a command with.

SynclineError                what happened, where, and what to do next
├── ConfigurationError       2: wrong usage, settings, YAML or models
├── RunError                 1: the run failed
│   ├── SourceError          the source did not answer as it should
│   │   └── SourceUnavailableError   it may answer later
│   ├── DatabaseError        the database refused or went away
│   │   ├── DatabaseUnavailableError  nobody answers there; it may later
│   │   ├── MissingRightsError        the database user may not do it
│   │   └── LockedError      a lock could not be had in time
│   ├── ModelError           dbt could not build an entity
│   ├── CancelledError       somebody asked to stop the run
│   └── LostClaimError       the run was taken from this process
└── RefusedError             3: a guard refused: nothing was changed
"""

from __future__ import annotations

from collections.abc import Mapping


class SynclineError(Exception):
    """An error with a message for people: what happened, where, and what to do next.

    `message` never holds a secret or a value of a record; `hint` is one sentence on what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(SynclineError):
    """Wrong usage, settings, YAML or models: nothing was started."""

    exit_code = 2


class RunError(SynclineError):
    """The run failed; what is current stays as it was."""


class SourceError(RunError):
    """The source did not answer as it should: unreachable, unauthorized, cut off, or not what was configured."""


class SourceUnavailableError(SourceError):
    """The source is down, busy or out of reach after all attempts: the same question may be answered later."""


class DatabaseError(RunError):
    """The database refused a statement or went away; the transaction at hand was rolled back."""


class DatabaseUnavailableError(DatabaseError):
    """The database is down, full or out of reach: the same question may be answered later."""


class MissingRightsError(DatabaseError):
    """The database user may not do what was asked of it: somebody has to grant it."""


class LockedError(DatabaseError):
    """A lock could not be had in time; the transaction was rolled back and can be tried again."""


class ModelError(RunError):
    """An entity could not be built; its `_current` view is as it was."""


class CancelledError(RunError):
    """Somebody asked to stop the run; what is current stays as it was."""


class LostClaimError(RunError):
    """The run was abandoned and taken from this process; its transaction was rolled back."""


class RefusedError(SynclineError):
    """A guard refused: checks, mass delete, error ratio, or nothing to roll back to."""

    exit_code = 3


def first_of(errors: Mapping[str, SynclineError]) -> SynclineError:
    """Return the first error, which names the others."""
    (_, first), *others = errors.items()
    also = f" (and {', '.join(name for name, _ in others)} failed too)" if others else ""
    return type(first)(first.message + also, first.hint)
