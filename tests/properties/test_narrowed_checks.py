"""Checks over the changed rows find what checks over all rows find, whatever happened before."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import jinja2
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from syncline import control, db
from syncline import publish as publishing
from syncline.errors import RefusedError
from tests.driver import typed
from tests.properties.conftest import Clones, examples

DBTS = files("dbt.include.global_project").joinpath("macros", "generic_test_sql")

PARTS = ["person", "place"]
"""The entities: a person lives at a place, and has a boss."""

Keys = st.integers(1, 6)
# Mostly what passes, so that there is something to be narrowed.
Numbers = st.sampled_from([1, 2, 3] * 5 + [4, None])
People = st.fixed_dictionaries(
    {"kind": st.sampled_from(["a", "b"] * 6 + ["c", None]), "place": Numbers, "boss": Numbers}
)
Places = st.fixed_dictionaries({"number": Numbers, "name": st.sampled_from(["x", "y"] * 6 + [None])})
Edits = st.fixed_dictionaries(
    {
        "person": st.dictionaries(Keys, People | st.none(), max_size=2),
        "place": st.dictionaries(Keys, Places | st.none(), max_size=2),
    }
)


@dataclass(frozen=True)
class Check:
    """One of dbt's tests on a column, with what it takes."""

    test: str
    entity: str
    column: str
    values: tuple[str, ...] = ()
    parent: str | None = None
    field: str | None = None

    def render(self, child: str, parent: str | None) -> str:
        """The test's SQL, by dbt's own macro."""
        arguments: list[Any] = [child, self.column]
        arguments += [self.values] if self.values else []
        arguments += [parent, self.field] if self.parent else []
        environment = jinja2.Environment(extensions=["jinja2.ext.do"])
        environment.globals["should_store_failures"] = lambda: True
        module = environment.from_string(DBTS.joinpath(f"{self.test}.sql").read_text()).module
        rendered: str = getattr(module, f"default__test_{self.test}")(*arguments)
        return rendered


LIVES = Check("relationships", "person", "place", parent="place", field="number")
CHECKS = [
    Check("not_null", "person", "kind"),
    Check("accepted_values", "person", "kind", values=("a", "b")),
    LIVES,
    Check("relationships", "person", "boss", parent="person", field="id"),
    Check("not_null", "place", "name"),
]
OTHERS = [Check("accepted_values", "person", "kind", values=("a", "b", "c")), Check("not_null", "person", "place")]

Endings = st.sampled_from(["publish", "publish", "publish", "publish", "fail", "leave", "dry run", "trial"])
Chosen = st.sampled_from([["person"], ["place"], PARTS, PARTS])


class Checked(RuleBasedStateMachine):
    """Two entities, whose tests are run narrowed and whole each time."""

    def __init__(self, clones: Clones) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.subject = self._stack.enter_context(clones())
        self.places = self.subject.add_stream("places")
        self.sources: dict[str, dict[int, Any]] = {"person": {}, "place": {}}
        self.checks = list(CHECKS)
        self.is_wide = self.is_upper = False

    def teardown(self) -> None:
        self._stack.close()

    # what is loaded, and what models and tests say

    @initialize()
    def begin(self) -> None:
        """Six people at three places, all of them good."""
        person, place = {"kind": "a", "boss": 1}, {"name": "x"}
        self.load(
            {
                "person": {key: person | {"place": 1 + key % 3} for key in range(1, 7)},
                "place": {key: place | {"number": 1 + key % 3} for key in range(1, 5)},
            }
        )

    @rule(edits=Edits)
    def load(self, edits: dict[str, dict[int, dict[str, Any] | None]]) -> None:
        """Bring records as they are now; None stands for one that is gone."""
        for entity, edited in edits.items():
            merged = self.sources[entity] | edited
            self.sources[entity] = {key: record for key, record in merged.items() if record is not None}
            lines = [json.dumps({"id": key} | record).encode() for key, record in self.sources[entity].items()]
            if edited and lines:
                self.subject.load_lines(lines, self.subject.people if entity == "person" else self.places)

    @rule(what=st.sampled_from(["model", "columns", "tests", "tests"]), data=st.data())
    def change(self, what: str, data: st.DataObject) -> None:
        """Give the child another expression or one more column, or choose among the tests."""
        if what == "model":
            self.is_upper = not self.is_upper
        elif what == "columns":
            self.is_wide = True
        else:
            self.checks = data.draw(st.lists(st.sampled_from(CHECKS + OTHERS), min_size=3, unique=True))

    def spec(self, entity: str) -> dict[str, Any]:
        name = self.subject.connection.info.dbname
        stream = "people" if entity == "person" else "places"
        relation = f'"{name}"."raw_files"."{stream}"'
        kind = typed("kind", "text")
        columns = {
            "person": f"{typed('id', 'bigint', required=True)} as id,"
            f" {f'lower({kind})' if self.is_upper else kind} as kind, {typed('place', 'integer')} as place,"
            f" {typed('boss', 'bigint')} as boss{', 1 as one' if self.is_wide else ''}",
            "place": f"{typed('number', 'bigint')} as number, {typed('name', 'text')} as name",
        }
        return {
            "sql": f"select _key, {columns[entity]} from {relation}",
            "entity": entity,
            "unique_key": ["id"] if entity == "person" else [],
            "streams": [{"source": "files", "stream": stream, "relation": relation}],
        }

    # runs

    @rule(
        edits=Edits,
        names=Chosen,
        ending=Endings,
        is_refresh=st.sampled_from([False] * 6 + [True]),
        is_met=st.sampled_from([False, False, True]),
    )
    def sync(self, edits: dict[str, Any], names: list[str], ending: str, is_refresh: bool, is_met: bool) -> None:
        """Load, build, check, and end as runs end; where `is_met`, others publish or take back during the checks."""
        self.load(edits)
        options = ({"full_refresh": True} if is_refresh else {}) | ({"limit": 1} if ending == "trial" else {})
        connection = self.subject.connection
        with self.subject.run(**options) as run_id:
            control.begin_step(connection, "build")
            for name in names:
                self.subject.build(**self.spec(name))
            self.check(names, is_met=is_met, is_refresh=is_refresh)
            if ending == "fail":
                control.withdraw_candidates(connection, run_id)
            elif ending != "leave":
                builds = control.mark_checked(connection, names)
                if ending == "trial":
                    control.withdraw_candidates(connection, run_id)
                elif ending == "publish" and builds:
                    publishing.publish(connection, builds, lifts_holds=True, patience=2)

    def check(self, names: list[str], *, is_met: bool, is_refresh: bool) -> None:
        """Run the tests that read one of these entities, narrowed and whole, and save those that passed."""
        known = {row["entity"] for row in self.subject.rows("select entity from syncline.entities")}
        passed = []
        for check in self.checks:
            reads = {check.entity, check.parent or check.entity}
            if not reads & set(names) or not reads <= known:
                continue
            child, parent = (
                f"{part}_{'next' if part in names else 'current'}" for part in (check.entity, check.parent)
            )
            narrowed = db.call_value(self.subject.connection, "narrow_check", json.dumps(self.facts(check, names)))
            if narrowed is None:
                continue  # the other entity has shown nothing yet
            rows = narrowed.pop("rows")
            event(f"{check.test}: {'narrowed' if rows.startswith('(') else 'whole'}")
            assert not (is_refresh and rows.startswith("("))
            has_moved = is_met and self.meddle(names)
            found = self.found(check.render(rows, f"public.{parent}"))
            if not has_moved:
                assert found == self.found(check.render(f"public.{child}", f"public.{parent}"))
            if not found:
                passed.append(narrowed)
        db.call(self.subject.connection, "save_passes", json.dumps(passed))

    def facts(self, check: Check, names: list[str]) -> dict[str, Any]:
        """What the macro hands over."""
        return {
            "test": check.test,
            "definition": hashlib.md5(check.render("child", "parent").encode()).hexdigest(),
            "entity": check.entity,
            "is_next": check.entity in names,
            "column": check.column,
            "parent": check.parent,
            "is_parent_next": check.parent in names,
            "field": check.field,
        }

    def found(self, query: str) -> list[str]:
        return sorted(json.dumps(row, default=str, sort_keys=True) for row in self.subject.rows(query))

    def meddle(self, names: list[str]) -> bool:
        """Let others publish the entity that this run leaves alone, or take it back; whether they did."""
        others = [part for part in PARTS if part not in names]
        if not others:
            return False
        (other,) = others
        found = self.subject.rows(f"select build_id from syncline.publishable(array['{other}'])")
        connection = self.subject.connection
        if found:
            with connection.transaction():
                publishing.publish(connection, [found[0]["build_id"]], lifts_holds=True, patience=2)
            event("others published during the checks")
            return True
        return self.try_rollback(other)

    @rule()
    def publish_what_was_checked(self) -> None:
        """Publish what dry runs left."""
        found = self.subject.rows("select * from syncline.publishable()")
        if found:
            event("published after a dry run")
            builds = [row["build_id"] for row in found]
            publishing.publish(self.subject.connection, builds, lifts_holds=True, patience=2)

    @rule(entity=st.sampled_from([None, *PARTS]))
    def roll_back(self, entity: str | None) -> None:
        self.try_rollback(entity)

    def try_rollback(self, entity: str | None) -> bool:
        """Go back one publish, of all or of one entity; whether there was anything to go back to."""
        if not self.subject.rows(f"select from syncline.entities where entity = '{entity or 'person'}'"):
            return False
        try:
            publishing.rollback(self.subject.connection, entity, patience=2)
        except RefusedError:
            return False
        event("rolled back")
        return True


def test_narrowed_and_whole_checks_find_the_same(clones: Clones) -> None:
    """Each test gives the same rows over what it has to read as over all, through any history of builds and tests."""
    run_state_machine_as_test(
        partial(Checked, clones), settings=settings(max_examples=examples(25), stateful_step_count=30)
    )
