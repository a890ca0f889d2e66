"""Random histories of one entity: loads, builds with every ending, publishes, rollbacks, changes of its model."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from syncline import control, db
from syncline import publish as publishing
from syncline.errors import ConfigurationError, RefusedError
from tests.driver import typed
from tests.properties.conftest import Clones
from tests.properties.subject import Line, Unreadable

ENTITY = "thing"

Rows = list[dict[str, Any]]

REFUSED = -1
"""Stands for the number of a build that was refused."""

Keys = st.integers(1, 6)
Records = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", "c", "\u00e4", None]),
        "age": st.sampled_from([1, 2, None, "old"]),
        # Few emails, so that unique keys collide; a record without one is rejected.
        "email": st.sampled_from(["v", "w", "x", "y", "v", "w", "x", "y", None]),
        "city": st.sampled_from(["Rome", "Oslo", None]),
        "tags": st.lists(st.sampled_from([{"tag": tag} for tag in ["p", "q", "p", "q", None]]), max_size=3),
    }
)
BadLines: st.SearchStrategy[Line] = st.one_of(
    st.builds(lambda number: b'{"id": %d, "name": "\\u0000"}' % number, Keys),
    st.builds(lambda number: Unreadable(b'{"id": %d}' % number), Keys),
    st.sampled_from([b"no json", b'{"name": "a"}']),
)


@dataclass(frozen=True)
class Load:
    """What a load brings: records that replace those of the source, and what comes with them just this once."""

    kind: str
    edits: list[tuple[int, dict[str, Any]]]
    gone: set[int]
    before: list[tuple[int, dict[str, Any]]]
    after: list[tuple[int, dict[str, Any]]]
    bad: list[Line]


Numbered = st.tuples(Keys, Records)
Loads = st.builds(
    Load,
    kind=st.sampled_from(["full", "full", "full", "anew", "increment", "increment", "trial"]),
    edits=st.lists(Numbered, min_size=1, max_size=3) | st.lists(Numbered, max_size=8),
    gone=st.sets(Keys, max_size=2),
    before=st.lists(Numbered, max_size=1),
    after=st.lists(Numbered, max_size=1),
    bad=st.just([]) | st.lists(BadLines, max_size=1),
)
Endings = st.sampled_from(["publish", "publish", "publish", "leave", "fail", "dry run", "dry run", "trial"])

MaxAges = st.sampled_from(["30 days", "0 seconds"])
Changes = st.sampled_from(["columns", "expression", "on_missing", "unique_key", "unique_key", "share"])

KINDS: dict[str, list[list[str]]] = {
    "people": [["email"], ["email"], ["id"], ["name"], []],
    "tags": [["id", "tag"], ["tag"], ["email", "tag"], []],
    "whole": [["name"]],
}
"""The kinds of entity, each with the unique keys that it may have: one row a record, one a tag, one a name."""


def line(number: int, record: dict[str, Any]) -> bytes:
    return json.dumps({"id": number} | record).encode()


class History(RuleBasedStateMachine):
    """Drives one entity on a database of its own, and remembers what should be current and what the way back is."""

    def __init__(self, clones: Clones) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.subject = self._stack.enter_context(clones())
        self.source: dict[int, dict[str, Any]] = {}
        self.is_wide = self.is_wide_for_good = self.is_upper = self.keeps = False
        self.current: Rows | None = None
        self.way_back: Rows | None = None
        self.columns: dict[int, bool] = {}

    def teardown(self) -> None:
        self._stack.close()

    # the model

    @initialize(
        data=st.data(), kind=st.sampled_from(["people", "people", "tags", "whole"]), share=st.sampled_from([0.15, 9])
    )
    def begin(self, data: st.DataObject, kind: str, share: float) -> None:
        self.kind = kind
        self.unique_key = data.draw(st.sampled_from(KINDS[kind]))
        self.set_share(share)

    def set_share(self, share: float) -> None:
        """Choose in which builds a version is written in place: none, those of a small share of its rows, all."""
        self.subject.connection.execute(
            "create or replace function syncline.share_written_in_place() returns numeric language sql immutable"
            f" as $$ select {share}::numeric $$"
        )

    @rule(data=st.data(), what=Changes)
    def change(self, data: st.DataObject, what: str) -> None:
        """Change the model in one respect, or how its versions are written."""
        if what == "columns":
            # A column that was published can only stay.
            self.is_wide = self.is_wide_for_good or not self.is_wide
        elif what == "expression":
            self.is_upper = not self.is_upper
        elif what == "on_missing":
            self.keeps = not self.keeps
        elif what == "share":
            self.set_share(data.draw(st.sampled_from([0, 0.15, 9])))
        else:
            self.unique_key = data.draw(st.sampled_from(KINDS[self.kind]))

    @property
    def spec(self) -> dict[str, Any]:
        """What the materialization hands over for the model as it is now."""
        name = typed("name", "text")
        name = f"upper({name})" if self.is_upper else name
        city = f", {typed('city', 'text')} as city" if self.is_wide else ""
        relation = self.subject.relation
        if self.kind == "whole":
            sql = f"select min(_key) as _key, {name} as name, count(*) as n from {relation} group by {name}"
            sql += " having count(*) < 3"
            if self.is_wide:
                sql = f"select *, n > 1 as city from ({sql}) as grouped"
        elif self.kind == "tags":
            sql = (
                f"select _key, {typed('id', 'bigint', required=True)} as id, {typed('email', 'text')} as email,"
                f" {typed('tag', 'text', required=True, record='item')} as tag, {name} as name{city} from {relation}"
                " cross join lateral jsonb_path_query(payload, '$.tags[*]') as t(item)"
            )
        else:
            sql = (
                f"select _key, {typed('id', 'bigint', required=True)} as id, {name} as name,"
                f" {typed('age', 'integer')} as age, {typed('email', 'text', required=True)} as email{city}"
                f" from {relation}"
            )
        return {
            "sql": sql,
            "entity": ENTITY,
            "unique_key": self.unique_key,
            "on_missing": "keep" if self.keeps else "delete",
            "delta": "full" if self.kind == "whole" else "auto",
        }

    # loads

    @rule(load=Loads)
    def load(self, load: Load) -> None:
        """Load all records of the source, other ones altogether, an increment or a trial."""
        edits = [line(*each) for each in load.edits]
        if load.kind == "trial":
            self.subject.load_lines(edits, limit=2)
            return
        if load.kind == "anew":
            self.source = {}
        self.source |= dict(load.edits)
        if load.kind == "increment":
            self.subject.load_lines([*load.bad, *edits], is_increment=True)
            return
        self.source = {number: self.source[number] for number in self.source if number not in load.gone}
        lines = [line(*each) for each in [*load.before, *self.source.items(), *load.after]]
        self.subject.load_lines([*load.bad, *lines])

    @rule(keep=st.sampled_from([1, 1, 3]), max_age=MaxAges)
    def prune(self, keep: int, max_age: str) -> None:
        self.subject.prune(self.subject.people, keep, max_age)

    # builds

    @precondition(lambda self: self.is_loaded)
    @rule(ending=Endings, is_refresh=st.sampled_from([False, False, True]))
    def build(self, ending: str, is_refresh: bool) -> None:
        """Build in a run of its own, and end it as runs end."""
        options = ({"full_refresh": True} if is_refresh else {}) | ({"limit": 1} if ending == "trial" else {})
        with self.subject.run(**options) as run_id:
            build = self.try_build()
            if build is not None:
                self.end(run_id, build, ending)

    @rule(load=Loads, ending=Endings)
    def load_and_build(self, load: Load, ending: str) -> None:
        self.load(load)
        if self.is_loaded:
            self.build(ending, is_refresh=False)

    @precondition(lambda self: self.is_loaded)
    @rule(first=Loads, then=Loads, ending=Endings, prunes=st.booleans())
    def build_as_of_earlier(self, first: Load, then: Load, ending: str, prunes: bool) -> None:
        """Build as of the loads that the run has pinned: what is loaded and pruned meanwhile makes no difference."""
        self.load(first)
        with self.subject.run() as run_id:
            with self.subject.connection.transaction(force_rollback=True):
                expected = self.rows("next") if self.build_or_refuse() is not REFUSED else None
            self.load(then)
            if prunes:
                self.subject.prune(self.subject.people, 1)
            build = self.try_build()
            if expected is not None:
                assert self.rows("next") == expected
            if build is not None:
                self.end(run_id, build, ending)

    def build_or_refuse(self) -> int | None:
        """Build; REFUSED where rows that are published collide on a new unique key, the one reason there may be."""
        try:
            # Within a transaction of the caller's this is a savepoint, so that the rest of it goes on.
            with self.subject.connection.transaction():
                return self.subject.build(**self.spec)
        except ConfigurationError as error:
            if "collide on its" not in error.message or not self.collides():
                raise
            return REFUSED

    def collides(self) -> bool:
        """Return whether the published rows give a unique key twice; nulls are never the same."""
        keys = [tuple(row.get(name) for name in self.unique_key) for row in self.current or []]
        whole = [key for key in keys if key and None not in key]
        return len(set(whole)) < len(whole)

    def try_build(self) -> int | None:
        """Build; None where nothing changed or the build was refused, which leaves everything as it was."""
        before = self.facts()
        base = before["current_build"]
        build = self.build_or_refuse()
        if build is REFUSED:
            event("build: refused")
            assert self.facts() == before
            return None
        if build is None:
            event("build: nothing changed")
            after = self.facts()
            assert (after["is_delta_all"], self.subject.delta(ENTITY)) == (before["is_delta_all"], before["delta"])
            assert after["next_build"] is None
            return None
        made = self.facts(build)["build"]
        event(f"build: written {'anew' if made['is_written_anew'] else 'in place'}")
        self.way_back = None
        self.columns[build] = self.is_wide
        is_delta_all = base is None or self.columns[base] != self.is_wide
        assert self.facts()["is_delta_all"] == is_delta_all
        return build

    def end(self, run_id: int, build: int, ending: str) -> None:
        event(f"candidate: {ending}")
        connection = self.subject.connection
        if ending == "fail":
            control.withdraw_candidates(connection, run_id)
        elif ending != "leave":
            assert control.mark_checked(connection, [ENTITY]) == [build]
            if ending == "publish":
                self.swap(build)
            elif ending == "trial":
                control.withdraw_candidates(connection, run_id)

    def swap(self, build: int) -> None:
        """Publish a candidate: from here on current is what next shows now."""
        shown = self.rows("next")
        publishing.publish(self.subject.connection, [build], lifts_holds=True, patience=2)
        self.way_back, self.current = self.current, shown
        self.is_wide_for_good |= self.columns[build]
        self.is_wide |= self.is_wide_for_good

    @precondition(lambda self: self.is_loaded)
    @rule()
    def publish_what_was_shown(self) -> None:
        """Publish what an earlier dry run left, where its candidate is still what is checked."""
        candidate = self.facts().get("next_build")
        if candidate is None:
            return
        if self.facts(candidate)["build"]["state"] == "checked":
            event("published after a dry run")
            self.swap(candidate)
            return
        try:
            publishing.publish(self.subject.connection, [candidate], patience=2)
        except RefusedError:
            return
        raise AssertionError("a candidate that was not checked was published")

    @precondition(lambda self: self.is_loaded)
    @rule()
    def roll_back(self) -> None:
        """Go back one publish, or be refused where there is nothing to go back to."""
        try:
            publishing.rollback(self.subject.connection, patience=2)
        except RefusedError:
            assert self.way_back is None
            return
        event("rolled back")
        assert self.way_back is not None
        self.current, self.way_back = self.way_back, None

    # what is there

    @property
    def is_loaded(self) -> bool:
        return bool(self.subject.rows("select 1 from syncline.streams where last_load is not null"))

    def facts(self, build: int | None = None) -> dict[str, Any]:
        """The entity's row, its delta, and one of its builds; empty before the first build."""
        found = self.subject.rows(f"select * from syncline.entities where entity = '{ENTITY}'")
        if not found:
            return {"current_build": None, "is_delta_all": None, "delta": None, "next_build": None}
        facts = found[0] | {"delta": self.subject.delta(ENTITY)}
        if build is not None:
            facts["build"] = self.subject.rows(f"select * from syncline.builds where build_id = {build}")[0]
        return facts

    def rows(self, suffix: str) -> Rows:
        """The rows of one of the entity's relations, without their nulls, in a fixed order."""
        rows = self.subject.rows(f"select jsonb_strip_nulls(to_jsonb(t)) as row from public.{ENTITY}_{suffix} as t")
        return sorted((row["row"] for row in rows), key=json.dumps)

    def verify(self) -> list[dict[str, Any]]:
        return db.call(self.subject.connection, "verify", ENTITY)
