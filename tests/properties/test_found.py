"""What the properties have found, as short as it gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver import people, person
from tests.properties.conftest import Clones
from tests.properties.histories import line
from tests.properties.subject import Subject


@pytest.fixture
def subject(clones: Clones) -> Iterator[Subject]:
    with clones() as made:
        yield made


def test_the_last_of_three_wins(subject: Subject) -> None:
    """A key that comes changed, as it is live, and changed again ends as the last of the three."""
    subject.load([person(1, name="live")])
    subject.load([person(1, name="first"), person(1, name="live"), person(1, name="last")])
    assert subject.live()["1"]["name"] == "last"


def test_a_tombstone_in_the_first_load_is_no_record(subject: Subject) -> None:
    """A record that says that its key is gone does not become live, in the first load as in any other."""
    stream = subject.add_stream("graves", deleted={"path": "gone"})
    row = subject.load_lines([line(1, {"gone": True}), line(2, {})], stream, is_increment=True)
    assert row["live_records"] == 1


def test_a_new_unique_key_takes_the_place_of_the_old(subject: Subject) -> None:
    """A version that is written in place is no longer held to the unique_key that the model had before."""
    for count in (100, 99, 98):
        subject.sync(people(count))
    subject.sync([*people(97), person(98, email="p1@example.com")], unique_key=["id"])
    assert subject.current()["98"]["email"] == "p1@example.com"


def test_the_key_can_be_the_unique_key(subject: Subject) -> None:
    """An entity with one row a record may say so with unique_key='_key'."""
    subject.sync(people(2), unique_key=["_key"])
    subject.sync([person(1, name="new"), person(2)], unique_key=["_key"])
    assert subject.current()["1"]["name"] == "new"


def test_what_the_oldest_pruned_load_closed_is_noticed(subject: Subject) -> None:
    """A build whose very next load was pruned looks at all keys, since it cannot tell what that load closed."""
    subject.sync(people(3))
    subject.load(people(2), allow_mass_delete=True)
    subject.prune(subject.people, 1, "0 seconds")
    subject.publish(subject.build())
    assert list(subject.current()) == ["1", "2"]


def test_pruning_spares_what_a_run_has_pinned(subject: Subject) -> None:
    """A run builds what it has pinned, though newer loads came and others pruned meanwhile."""
    subject.load(people(4))
    with subject.run():
        subject.load(people(2), allow_mass_delete=True)
        subject.prune(subject.people, 1)
        subject.build()
    assert list(subject.next()) == ["1", "2", "3", "4"]


def test_counts_hold_under_a_new_unique_key(subject: Subject) -> None:
    """A build counts right where published rows give the model's new unique_key twice."""
    subject.sync([person(1, email="x"), person(2, email="x")], unique_key=["id"])
    subject.load([person(1, email="x", name="new")], allow_mass_delete=True)
    subject.build(unique_key=["email"])
    assert len(subject.next()) == 1
    assert subject.last_build()["rows_total"] == 1
