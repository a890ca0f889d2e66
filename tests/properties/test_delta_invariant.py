"""The rule that makes builds cheap and safe: delta holds exactly the keys on which the two versions differ."""

from __future__ import annotations

from functools import partial

from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.properties.conftest import Clones, examples
from tests.properties.histories import ENTITY, History


class DeltaInvariant(History):
    """A history that is looked at after each step."""

    @invariant()
    def delta_holds_the_differing_keys(self) -> None:
        if self.facts()["current_build"] is not None or self.facts()["next_build"] is not None:
            assert self.verify() == []

    @invariant()
    def current_is_what_was_published_last(self) -> None:
        if self.facts()["is_delta_all"] is not None:
            assert self.rows("current") == (self.current or [])

    @invariant()
    def next_is_the_candidate_or_what_is_current(self) -> None:
        facts = self.facts()
        if facts["current_build"] is not None and facts["next_build"] is None:
            assert self.rows("next") == self.current

    @invariant()
    def counts_add_up(self) -> None:
        facts = self.facts()
        for relation, number in (("current", facts["current_build"]), ("next", facts["next_build"])):
            if number is None:
                continue
            build = self.facts(number)["build"]
            assert build["rows_total"] == len(self.rows(relation))
            assert build["rows_total"] == build["rows_unchanged"] + build["rows_updated"] + build["rows_inserted"]
            if build["base_build"] is not None:
                before = self.facts(build["base_build"])["build"]["rows_total"]
                assert build["rows_total"] == before + build["rows_inserted"] - build["rows_deleted"]

    @invariant()
    def builds_have_the_states_that_the_entity_says(self) -> None:
        facts = self.facts()
        rows = self.subject.rows(f"select build_id, state, version from syncline.builds where entity = '{ENTITY}'")
        by_state = {
            state: [row["build_id"] for row in rows if row["state"] == state] for state in ("current", "retired")
        }
        assert by_state["current"] == [number for number in [facts["current_build"]] if number is not None]
        assert len(by_state["retired"]) == (self.way_back is not None)

    @invariant()
    def no_workspace_is_left(self) -> None:
        assert self.subject.rows("select nspname from pg_namespace where nspname ~ '^syncline[0-9]*_'") == []


def test_delta_holds_exactly_the_differing_keys(clones: Clones) -> None:
    """After any history, delta is right, current is what was published last, counts add up and no schema is left."""
    run_state_machine_as_test(
        partial(DeltaInvariant, clones), settings=settings(max_examples=examples(30), stateful_step_count=25)
    )
