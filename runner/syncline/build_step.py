"""The build and check steps of a run: dbt makes candidates and judges them, entity by entity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from syncline import check, control, db, telemetry
from syncline.dbt import Dbt, Entity, Models
from syncline.errors import RefusedError, SynclineError, first_of
from syncline.watcher import Watcher


@dataclass(frozen=True, slots=True)
class BuildStep:
    """What to build, and whom to tell. The session holds the entities' locks."""

    connection: db.Connection
    dbt: Dbt
    claimed: tuple[int, int]
    watcher: Watcher
    entities: list[Entity]
    models: Models

    def run(self, *, is_each: bool) -> dict[str, SynclineError]:
        """Build the entities and run their tests; return what failed, by entity, where each stands for itself.

        Raises the first failure otherwise, naming all.
        """
        control.pin_loads(self.connection)
        control.begin_step(self.connection, "build")
        self.watcher.step("build")
        nodes = self._build()
        check.save_passes(self.connection, nodes)
        errors = check.model_errors(nodes)
        if errors and not is_each:
            raise first_of(errors)
        built = [entity for entity in self.entities if entity.name not in errors]
        control.register_entities(self.connection, {entity.name: entity.parents for entity in built})
        unjudged = check.test_errors(nodes)
        if unjudged and not is_each:
            raise first_of(unjudged)
        failures = check.find_failures(self.connection, nodes, self._views())
        self._tell(failures)
        if not is_each:
            check.refuse_failures(failures)
        errors = check.refusals(failures) | unjudged | errors
        for entity in built:
            try:
                control.check_error_ratio(self.connection, entity.name, entity.max_error_ratio)
            except RefusedError as error:
                if not is_each:
                    raise
                errors.setdefault(entity.name, error)
        return errors

    def _views(self) -> dict[str, tuple[str, str]]:
        """What ref() gave the tests of each entity: the candidates of this run, and of others what is published."""
        names = {entity.name for entity in self.entities}
        return {
            name: (entity.schema, f"{name}_{'next' if name in names else 'current'}")
            for name, entity in self.models.entities.items()
        }

    def _build(self) -> list[dict[str, Any]]:
        names = [entity.name for entity in self.entities]
        waiting = {entity.node: entity.name for entity in self.entities}

        def follow(event: Mapping[str, Any]) -> None:
            name = waiting.get(event["node"])
            if name is None:
                return
            if event["event"] == "NodeStart":
                self.watcher.entity(name, "building")
                return
            self.watcher.entity(name, "built" if event["status"] == "success" else "failed")
            del waiting[event["node"]]
            if not waiting:
                control.finish_step(self.connection, "build")
                control.begin_step(self.connection, "check")
                self.watcher.step("check")

        # A test that reads an entity which was never built would fail on a relation that is not there.
        known = set(names) | control.known_entities(self.connection)
        tests = [name for name, read in self.models.tests.items() if set(read) & set(names) and set(read) <= known]
        with telemetry.span("syncline.dbt_build", entities=names, tests=len(tests)):
            return self.dbt.build([*names, *tests], self.claimed, follow, is_exact=True)

    def _tell(self, failures: list[check.Failure]) -> None:
        for failure in failures:
            level = "error" if failure.is_error else "warning"
            detail = {"test": failure.test, "entity": failure.entity, "rows": failure.count}
            control.log(self.connection, level, "check_failed", **detail)
            self.watcher.event(level, "check_failed", {"run_id": self.claimed[0]} | detail)
            if not failure.is_error:
                self.watcher.note(f"warning: {failure}")
