"""The publish step and its way back: swaps current views in one short transaction, tried until it fits in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from syncline import db
from syncline.errors import LockedError, RefusedError, RunError

PATIENCE = 60.0
"""Seconds for which a swap is tried: each try waits for locks for 100 ms at most, so that readers never queue long."""

T = TypeVar("T")


def publish(
    connection: db.Connection, builds: list[int], *, lifts_holds: bool = False, patience: float = PATIENCE
) -> int:
    """Point the current views of the builds' entities at them, all or none; return the publication's number.

    One transaction, tried with jitter for `patience` seconds. Raises RefusedError where a build is not what was
    checked any more, RunError naming who is in the way where the locks cannot be had.
    """

    def swap() -> int:
        publication: int = db.call_value(connection, "publish", builds, lifts_holds)
        return publication

    return _try_until_locked(connection, swap, patience)


def publish_checked(connection: db.Connection, entities: list[str] | None) -> tuple[dict[str, int], int | None]:
    """Lift the holds of these entities (None: of all) and publish their checked candidates.

    Return entity to build, and the publication's number, None where there was no candidate. Raises RefusedError where
    there is neither a hold nor a candidate.
    """
    if entities:
        db.call(connection, "check_known", entities)
    rows = db.call(connection, "publishable", entities, None)
    found = {row["entity"]: row["build_id"] for row in rows}
    publication = publish(connection, list(found.values()), lifts_holds=True) if found else None
    lifted = db.call(connection, "lift_holds", entities)
    if not found and not lifted:
        raise RefusedError("there is no checked candidate to publish", "Make one with `syncline run --dry-run`.")
    return found, publication


def rollback(connection: db.Connection, entity: str | None = None, *, patience: float = PATIENCE) -> list[str]:
    """Take back what the last publishing run swapped, or one entity with its readers; return the entities.

    Raises RefusedError where there is nothing to go back to.
    """
    rows = _try_until_locked(connection, lambda: db.call(connection, "rollback", entity), patience)
    return [row["rollback"] for row in rows]


def _try_until_locked(connection: db.Connection, action: Callable[[], T], patience: float) -> T:
    until = time.monotonic() + patience
    while True:
        try:
            with connection.transaction():
                return action()
        except LockedError:
            blockers = db.call(connection, "view_blockers")
            if time.monotonic() > until:
                held = "; ".join(f"{row['entity']}: {row['blockers']}" for row in blockers) or "nobody any more"
                raise RunError(
                    f"the current views were in use for {patience:.0f} s ({held})",
                    "Nothing was swapped. End these sessions or wait for them, then run `syncline publish`.",
                ) from None
            time.sleep(random.uniform(0.02, 0.2))  # noqa: S311 (jitter)
