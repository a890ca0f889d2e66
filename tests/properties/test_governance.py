"""Whose value a field has: random sources, priorities, authorities, overrides and rollbacks against plain Python."""

from __future__ import annotations

import json
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from syncline import control, db
from syncline import publish as publishing
from syncline.errors import RefusedError
from tests.driver import typed
from tests.merging import merged_sql
from tests.properties.conftest import Clones, examples

ENTITY = "thing"
SOURCES = ("sheet", "crm", "shop")
TYPES = {"name": "text", "size": "integer", "note": "text"}
DERIVED = "name || '/' || coalesce(size, 0)"

Key = str
Row = dict[str, Any]

Keys = st.sampled_from(["1", "2", "3", "4"])
Values = {
    "name": st.sampled_from(["a", "b", None]),
    "size": st.sampled_from([1, 2, None]),
    "note": st.sampled_from(["x", "y", None]),
}
Records = st.fixed_dictionaries(Values | {"must": st.sampled_from([1, 1, 1, 1, 1, None])})
Fields = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries(
            {
                "priority": st.permutations(SOURCES).flatmap(
                    lambda order: st.integers(1, len(order)).map(lambda many: list(order[:many]))
                ),
                "references": st.sets(st.sampled_from(SOURCES), max_size=2),
            }
        )
        for name in TYPES
    }
)
Endings = st.sampled_from(["publish", "publish", "publish", "publish", "leave", "fail"])


@dataclass
class Rules:
    """A model's settings: of each field the sources by priority and those that are references, and what is off."""

    fields: dict[str, Any]
    off: frozenset[str] = frozenset()
    on_missing: str = "delete"

    def settings(self) -> dict[str, Any]:
        """What merged() takes."""
        made: dict[str, Any] = {
            name: {
                "priority": one["priority"],
                "authority": {source: "reference" for source in one["references"] if source in one["priority"]},
            }
            for name, one in self.fields.items()
        }
        return made | {"must": {}, "label": {"authority": "derived", "value": DERIVED}}

    def truths(self, name: str) -> list[str]:
        one = self.fields[name]
        return [source for source in one["priority"] if source not in self.off and source not in one["references"]]

    def keeps(self, name: str) -> bool:
        one = self.fields[name]
        return any(source in one["references"] for source in one["priority"])

    def references(self, name: str) -> list[str]:
        one = self.fields[name]
        return [source for source in one["priority"] if source not in self.off and source in one["references"]]


@dataclass
class Override:
    """A person's decision: a value, or a source that is trusted; and what it displaced as it came into force."""

    number: int
    key: Key
    column: str
    value: Any
    source: str | None
    displaced: Any


@dataclass
class Version:
    """A build as it should be: its rows, the overrides in it, and what sources disagree on."""

    rows: dict[Key, Row] = field(default_factory=dict)
    overrides: dict[tuple[Key, str], Override] = field(default_factory=dict)
    conflicts: dict[tuple[Key, str], dict[str, Any]] = field(default_factory=dict)


def label(row: Row) -> str | None:
    return None if row["name"] is None else f"{row['name']}/{row['size'] or 0}"


def build(
    active: Version,
    records: dict[str, dict[Key, Row]],
    overrides: dict[tuple[Key, str], Override],
    rules: Rules,
    forced: bool,
) -> Version:
    """The rules of the design, key by key: a function of the active version, the live records and the overrides."""
    made = Version()
    for place, one in overrides.items():
        known = active.overrides.get(place)
        made.overrides[place] = known if known and known.number == one.number else one
    live_sources = [source for source in SOURCES if source not in rules.off]
    for key in {*active.rows, *(key for source in SOURCES for key in records[source])}:
        live = {source: records[source][key] for source in live_sources if key in records[source]}
        # Every stream that the model names counts as having the key, those that are switched off included.
        is_here = any(key in records[source] for source in SOURCES)
        before = active.rows.get(key)
        plain = None if before is None else dict(before)
        for (other, column), override in active.overrides.items():
            if plain is not None and other == key:
                plain[column] = override.displaced
        is_rejected = any(record["must"] is None for record in live.values())
        said: dict[str, dict[str, Any]] = {}
        if is_rejected or not live:
            if plain is None or (not is_rejected and (rules.on_missing == "delete" or is_here)):
                continue
            row = plain | ({"is_missing": True} if not is_rejected and rules.on_missing == "mark" else {})
        else:
            row = {"is_missing": False}
            for name in TYPES:
                said[name] = {
                    source: live[source][name]
                    for source in rules.truths(name) + rules.references(name)
                    if source in live and live[source][name] is not None
                }
                truth = next((said[name][source] for source in rules.truths(name) if source in said[name]), None)
                reference = next(
                    (said[name][source] for source in rules.references(name) if source in said[name]), None
                )
                row[name] = truth
                if truth is None and rules.keeps(name):
                    row[name] = reference if plain is None else plain[name]
                    if forced and reference is not None:
                        row[name] = reference
            row["label"] = label(row)
        decided = {column: one for (other, column), one in overrides.items() if other == key}
        for column, override in decided.items():
            before_it = active.overrides.get((key, column))
            if before is None or before_it is None or before_it.number != override.number:
                made.overrides[key, column] = replace(override, displaced=row[column])
        patch = {}
        for column, override in decided.items():
            if override.source is None:
                patch[column] = override.value
            elif said.get(column, {}).get(override.source) is not None:
                patch[column] = said[column][override.source]
            elif (
                not said
                and (key, column) in active.overrides
                and active.overrides[key, column].number == override.number
            ):
                assert before is not None
                if before[column] is not None:
                    patch[column] = before[column]
        row |= patch
        if patch:
            row["label"] = patch.get("label", label(row)) if "label" in patch else label(row)
        made.rows[key] = row
        if is_rejected:
            continue
        for name, values in said.items():
            if len(set(map(str, values.values()))) > 1:
                made.conflicts[key, name] = values
    for place, values in active.conflicts.items():
        records_of_key = [records[source][place[0]] for source in live_sources if place[0] in records[source]]
        if any(record["must"] is None for record in records_of_key):
            made.conflicts[place] = values
    return made


class Governance(RuleBasedStateMachine):
    """Drives one merged entity of three sources, and the model beside it."""

    def __init__(self, clones: Clones) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.subject = self._stack.enter_context(clones())
        self.streams = {source: self.subject.add_stream(source) for source in SOURCES}
        self.records: dict[str, dict[Key, Row]] = {source: {} for source in SOURCES}
        self.current: Version | None = None
        self.way_back: Version | None = None
        self.candidate: tuple[int, Version] | None = None
        self.in_force: dict[tuple[Key, str], Override] = {}
        self.past: list[dict[Key, Row]] = []

    def teardown(self) -> None:
        self._stack.close()

    @initialize(fields=Fields, on_missing=st.sampled_from(["delete", "keep", "mark"]), first=st.data())
    def begin(self, fields: dict[str, Any], on_missing: str, first: st.DataObject) -> None:
        self.rules = Rules(fields, on_missing=on_missing)
        for source in SOURCES:
            self.load(source, first.draw(st.dictionaries(Keys, Records, min_size=1)))

    # what happens

    @rule(source=st.sampled_from(SOURCES), records=st.dictionaries(Keys, Records))
    def load(self, source: str, records: dict[Key, Row]) -> None:
        self.records[source] = records
        lines = [json.dumps({"id": int(key)} | record).encode() for key, record in records.items()]
        self.subject.load_lines(lines, self.streams[source])

    @rule(fields=Fields, off=st.sampled_from([(), (), ("crm",), ("sheet", "shop")]))
    def change_rules(self, fields: dict[str, Any], off: tuple[str, ...]) -> None:
        self.rules = Rules(fields, frozenset(off), self.rules.on_missing)

    @precondition(lambda self: self.current is not None and self.current.rows)
    @rule(data=st.data(), column=st.sampled_from([*TYPES, "label"]), trusts=st.booleans())
    def decide(self, data: st.DataObject, column: str, trusts: bool) -> None:
        """Override a field of a published row, or trust one source for it."""
        assert self.current is not None
        key = data.draw(st.sampled_from(sorted(self.current.rows)))
        sources = self.sources_now(column)
        value = source = None
        if trusts and sources:
            source = data.draw(st.sampled_from(sources))
        else:
            value = data.draw(Values.get(column, st.sampled_from(["mine", None])))
        number = db.call_value(
            self.subject.connection,
            "set_override",
            ENTITY,
            key,
            column,
            None if source else json.dumps(value),
            source,
            "because",
            "somebody",
        )
        self.in_force[key, column] = Override(number, key, column, value, source, None)

    def sources_now(self, column: str) -> list[str]:
        """The sources of a field in the model that is published: those that can be trusted."""
        mapping = self.subject.rows(f"select column_name, source from syncline.column_mapping('{ENTITY}')")
        return [row["source"] for row in mapping if row["column_name"] == column and row["source"]]

    @precondition(lambda self: self.in_force)
    @rule(data=st.data())
    def lift(self, data: st.DataObject) -> None:
        key, column = data.draw(st.sampled_from(sorted(self.in_force)))
        db.call(self.subject.connection, "lift_override", ENTITY, key, column, "somebody")
        del self.in_force[key, column]

    @rule(ending=Endings, refreshes=st.booleans(), forced=st.sampled_from([False, False, False, True]))
    def build(self, ending: str, refreshes: bool, forced: bool) -> None:
        expected = build(self.current or Version(), self.records, self.in_force, self.rules, forced)
        options = {"full_refresh": refreshes} | ({"force_overwrite": True} if forced else {})
        connection = self.subject.connection
        with (
            connection.transaction(force_rollback=True),
            self.subject.run(full_refresh=not refreshes, **({"force_overwrite": True} if forced else {})),
        ):
            self.make()
            other = self.shown("next")
        with self.subject.run(**options) as run_id:
            number = self.make()
            assert self.shown("next") == expected.rows
            assert other == expected.rows
            self.candidate = None
            if number is None:
                event("build: nothing changed")
                assert self.current is not None
                self.current = expected
                return
            self.way_back = None
            event(f"build: {ending}")
            if ending == "fail":
                control.withdraw_candidates(connection, run_id)
                return
            control.mark_checked(connection, [ENTITY])
            self.candidate = (number, expected)
            if ending == "publish":
                self.publish()

    def make(self) -> int | None:
        columns = {name: typed(name, kind) for name, kind in TYPES.items()} | {
            "must": typed("must", "integer", required=True)
        }
        listed = ", ".join(f'{value} as "{name}"' for name, value in columns.items())
        database = self.subject.connection.info.dbname
        relations = {source: f'"{database}"."raw_files"."{source}"' for source in SOURCES}
        staging = {source: f"select _key, {listed} from {relations[source]}" for source in SOURCES}
        return self.subject.build(
            merged_sql(staging, self.rules.settings(), self.rules.off),
            ENTITY,
            unique_key=[],
            on_missing=self.rules.on_missing,
            history=True,
            streams=[{"source": "files", "stream": name, "relation": relations[name]} for name in SOURCES],
        )

    @precondition(lambda self: self.candidate is not None)
    @rule()
    def publish(self) -> None:
        """Publish what a build or an earlier dry run left, whatever was decided since."""
        assert self.candidate is not None
        number, version = self.candidate
        publishing.publish(self.subject.connection, [number], lifts_holds=True, patience=2)
        self.way_back, self.current, self.candidate = self.current, version, None
        self.note()

    @rule()
    def roll_back(self) -> None:
        try:
            publishing.rollback(self.subject.connection, patience=2)
        except RefusedError:
            assert self.way_back is None
            return
        event("rolled back")
        self.current, self.way_back, self.candidate = self.way_back, None, None
        self.note()

    def note(self) -> None:
        assert self.current is not None
        self.past.append(deepcopy(self.current.rows))

    # what is there

    def shown(self, suffix: str) -> dict[Key, Row]:
        rows = self.subject.rows(f"select * from public.{ENTITY}_{suffix}")
        keys = [row["_key"] for row in rows]
        assert len(set(keys)) == len(keys)
        return {row.pop("_key"): self.plain(row) for row in rows}

    @staticmethod
    def plain(row: Row) -> Row:
        return {name: row[name] for name in [*TYPES, "label"]} | {"is_missing": row.get("_missing_since") is not None}

    @invariant()
    def current_is_as_the_rules_say(self) -> None:
        if self.current is not None:
            assert self.shown("current") == self.current.rows

    @invariant()
    def conflicts_are_what_sources_disagree_on(self) -> None:
        found = self.subject.rows("select * from syncline.conflicts where state <> 'closed'")
        expected = self.current.conflicts if self.current else {}
        assert {(row["_key"], row["column_name"]): row["candidates"] for row in found} == expected
        for row in found:
            assert (row["state"] == "resolved") == ((row["_key"], row["column_name"]) in self.in_force)

    @invariant()
    def history_tells_every_publish(self) -> None:
        if not self.past:
            return
        times = self.subject.rows("select published_at from syncline.publications order by publication_id")
        for time, rows in list(zip(times, self.past, strict=True))[-4:]:
            stamp = time["published_at"].isoformat()
            found = self.subject.rows(f"select * from public.{ENTITY}_as_of('{stamp}')")
            assert {row["_key"]: self.plain(row) for row in found} == rows

    @invariant()
    def changes_lead_from_each_publish_to_the_next(self) -> None:
        for place, (before, after) in enumerate(zip(self.past[:-1], self.past[1:], strict=True), 2):
            changes = self.subject.rows(
                "select c.* from syncline.changes as c inner join (select publication_id,"
                " row_number() over (order by publication_id) as place from syncline.publications) as p"
                f" using (publication_id) where p.place = {place}"
            )
            told = {row["_key"]: row["change"] for row in changes}
            expected = {
                key: "inserted" if key not in before else "deleted" if key not in after else "updated"
                for key in {*before, *after}
                if before.get(key) != after.get(key)
            }
            assert told == expected
            for row in changes:
                if row["change"] == "updated":
                    fields = {name for name in row["new"] if name != "_missing_since"}
                    assert fields == {
                        name for name in [*TYPES, "label"] if before[row["_key"]][name] != after[row["_key"]][name]
                    }
                    assert all(row["new"][name] == after[row["_key"]][name] for name in fields)

    @invariant()
    def lineage_answers_for_each_value(self) -> None:
        if self.current is None or not self.current.rows:
            return
        key = min(self.current.rows)
        told = self.subject.rows(f"select * from syncline.lineage('{ENTITY}', '{key}')")
        assert {row["column_name"]: row["value"] for row in told if row["column_name"] in TYPES} == {
            name: self.current.rows[key][name] for name in TYPES
        }
        for row in told:
            assert (row["override"] is not None) == ((key, row["column_name"]) in self.current.overrides)

    @invariant()
    def both_proofs_hold(self) -> None:
        if self.current is not None:
            assert db.call(self.subject.connection, "verify", ENTITY) == []
            assert db.call(self.subject.connection, "verify_raw", ENTITY) == []


def test_every_row_is_as_the_rules_say(clones: Clones) -> None:
    """Sources, priorities, authorities, overrides and rollbacks in any order agree with plain Python on every row."""
    run_state_machine_as_test(
        partial(Governance, clones), settings=settings(max_examples=examples(25), stateful_step_count=25)
    )
