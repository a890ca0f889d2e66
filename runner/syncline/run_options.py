"""What a run is asked to do, as commands, the API and the queue say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from syncline.config import Publish
from syncline.connectors.push import Push
from syncline.errors import ConfigurationError

Step = Literal["load", "build", "check", "publish"]
STEPS: tuple[Step, ...] = ("load", "build", "check", "publish")


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which row errors a run replays: those that are all of this, or every open one."""

    errors: tuple[int, ...] = ()
    entity: str | None = None
    stream: str | None = None
    run: int | None = None
    all: bool = False


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is asked to do. Empty lists mean all; `limit` makes it a trial, which publishes nothing."""

    sources: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    steps: tuple[Step, ...] = STEPS
    dry_run: bool = False
    limit: int | None = None
    full_refresh: bool = False
    force_overwrite: bool = False
    allow_mass_delete: bool = False
    since: str | None = None
    until: str | None = None
    push: Push | None = None
    replay: Replay | None = None
    publish: Publish | None = None
    wait_timeout: float = 600
    timeout: float | None = None
    trigger: str = "cli"
    triggered_by: str | None = None
    request_id: str | None = None

    @classmethod
    def asked_for(cls, run: Mapping[str, Any]) -> RunOptions:
        """What a row of the queue asks for. Raises ConfigurationError where its options are none."""
        try:
            asked = msgspec.convert(run["options"], _Asked)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"run {run['run_id']} asks for what cannot be: {error}") from None
        return cls(
            sources=tuple(run["sources"]),
            entities=tuple(run["entities"]),
            trigger=run["trigger"],
            triggered_by=run["triggered_by"],
            request_id=run["request_id"],
            **msgspec.structs.asdict(asked),
        )

    def as_json(self) -> dict[str, Any]:
        """The part that decides what the run does, as the control plane keeps it."""
        wanted = {
            "streams": list(self.streams),
            "steps": list(self.steps) if self.steps != STEPS else [],
            "dry_run": self.dry_run,
            "limit": self.limit,
            "full_refresh": self.full_refresh,
            "force_overwrite": self.force_overwrite,
            "allow_mass_delete": self.allow_mass_delete,
            "since": self.since,
            "until": self.until,
            # What is pushed is there once: no other run can stand for this one.
            "publish": self.publish,
            "push": self.push.token if self.push else None,
            "replay": msgspec.to_builtins(self.replay) if self.replay else None,
        }
        return {name: value for name, value in wanted.items() if value}

    @property
    def publishes(self) -> bool:
        return "publish" in self.steps and not self.dry_run and self.limit is None


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a row of the queue."""

    streams: tuple[str, ...] = ()
    steps: tuple[Step, ...] = STEPS
    dry_run: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    full_refresh: bool = False
    force_overwrite: bool = False
    allow_mass_delete: bool = False
    since: str | None = None
    until: str | None = None
    publish: Publish | None = None
    replay: Replay | None = None
