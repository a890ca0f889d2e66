"""One rule gives the rows of a key: for the same active version, some keys and all keys give the same table."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from tests.properties.conftest import Clones, examples
from tests.properties.histories import ENTITY, REFUSED, History, Load, Loads, MaxAges


class DeltaEqualsFull(History):
    """A history in which builds are tried both ways, each in a transaction that is rolled back."""

    @precondition(lambda self: self.is_published)
    @rule()
    def compare(self) -> None:
        delta_in_place = self.outcome(share=9)
        delta_anew = self.outcome(share=0)
        full = self.outcome(share=9, full_refresh=True)
        event(
            "compared: refused" if "refused" in full else f"compared: {len(full['delta'])} of {len(full['rows'])} rows"
        )
        assert delta_in_place == full
        assert delta_anew == full

    @precondition(lambda self: self.is_published)
    @rule(load=Loads, prunes=st.booleans(), max_age=MaxAges)
    def load_and_compare(self, load: Load, prunes: bool, max_age: str) -> None:
        self.load(load)
        if prunes:
            self.prune(1, max_age)
        self.compare()

    @property
    def is_published(self) -> bool:
        return self.facts()["current_build"] is not None

    def outcome(self, share: float, **options: Any) -> dict[str, Any]:
        """What a build would give: rows, delta, counts, rejected keys and the errors that then hold."""
        connection = self.subject.connection
        with connection.transaction(force_rollback=True):
            self.set_share(share)
            with self.subject.run(**options):
                build = self.build_or_refuse()
            if build is REFUSED:
                return {"refused": True}
            facts = self.facts(build or self.facts()["current_build"])
            counts = self.subject.rows("select * from syncline.results order by run_id desc limit 1")[0]
            rejected = self.subject.rows(
                f"select _key from syncline.rejected_keys where build_id = {facts['build']['build_id']} order by 1"
            )
            errors = self.subject.rows(
                "select _key, row_number, path, value, message, severity from syncline.row_errors"
                f" where closed_at is null and entity = '{ENTITY}' order by 1, 2, 3, 4"
            )
            return {
                "writes": build is not None,
                "rows": self.rows("next"),
                "delta": facts["delta"],
                "counts": {name: counts[name] for name in counts if name.startswith(("rows", "keys"))},
                "rejected": rejected,
                "errors": errors,
            }


def test_some_keys_and_all_keys_give_the_same_table(clones: Clones) -> None:
    """A build of the changed keys, in place or anew, and one of all keys agree: rows, delta, counts, errors."""
    run_state_machine_as_test(
        partial(DeltaEqualsFull, clones), settings=settings(max_examples=examples(20), stateful_step_count=25)
    )
