"""Rollback, hold, dry run, trial: what is published when, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.projects import Bench, Watcher, people, person, rows

OLD, NEW, NEWER = people(50), people(50, name="new"), people(50, name="newer")

REFERRING = """
models:
  - name: visits
    description: Visits.
    columns:
      - name: visit_id
        description: Whose.
        data_tests:
          - relationships: {arguments: {to: ref('people'), field: person_id}}
"""


def publish(bench: Bench, records: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    bench.api.records["people"] = records
    return bench.sync(**options)


def refused(bench: Bench, *arguments: str) -> str:
    """Run a command that a guard has to refuse; return what it says."""
    ended = bench.call(*arguments)
    assert ended.returncode == 3, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert "\n  try: " in ended.stderr
    return ended.stderr


def done(bench: Bench, *arguments: str) -> Any:
    """Run a command that has to succeed; return its JSON."""
    ended = bench.call(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_there_is_nothing_to_go_back_to(bench: Bench) -> None:
    """Before the first publish and after it alone, a rollback is refused with exit 3 and changes nothing."""
    assert "nothing was ever published" in refused(bench, "rollback")
    bench.sync(dry_run=True)
    assert "nothing was ever published" in refused(bench, "rollback")
    publish(bench, OLD)
    before = bench.state()
    assert "people has nothing to go back to" in refused(bench, "rollback")
    assert "people has nothing to go back to" in refused(bench, "rollback", "people")
    assert bench.state() == before


def test_a_second_rollback_is_refused(bench: Bench) -> None:
    """A rollback reaches one publish back: current is what it was, and the next rollback is refused with exit 3."""
    publish(bench, OLD)
    publish(bench, NEW)
    assert done(bench, "rollback") == {"rolled_back": ["people"]}
    assert (bench.current(), bench.next()) == (rows(OLD), rows(OLD))
    before = bench.state()
    assert "nothing to go back to" in refused(bench, "rollback")
    assert bench.state() == before
    bench.verify()


def test_a_build_that_wrote_uses_the_way_back_up(bench: Bench) -> None:
    """After a dry run has written over the older version, a rollback is refused, and says why."""
    publish(bench, OLD)
    publish(bench, NEW)
    publish(bench, NEWER, dry_run=True)
    assert "not past a later build" in refused(bench, "rollback")
    assert bench.current() == rows(NEW)


def test_a_held_entity_is_built_and_not_published(bench: Bench) -> None:
    """After a rollback runs build and check, and publish nothing; `publish` lifts the hold and publishes that."""
    publish(bench, OLD)
    publish(bench, NEW)
    done(bench, "rollback")
    watcher = Watcher()
    report = publish(bench, NEWER, watcher=watcher)
    assert report["entities"]["people"]["state"] == "checked"
    assert any("held" in note and "people" in note for note in watcher.notes)
    assert (bench.current(), bench.next()) == (rows(OLD), rows(NEWER))
    publish(bench, people(49, name="newest"))
    assert bench.current() == rows(OLD)
    bench.verify()
    assert list(done(bench, "publish")["published"]) == ["people"]
    assert bench.current() == rows(people(49, name="newest"))
    publish(bench, OLD)
    assert bench.current() == rows(OLD)
    bench.verify()


def test_a_hold_is_lifted_without_a_candidate(bench: Bench) -> None:
    """With nothing built since the rollback, `publish` lifts the hold, and the next run publishes."""
    publish(bench, OLD)
    publish(bench, NEW)
    done(bench, "rollback")
    assert done(bench, "publish") == {"published": {}}
    assert bench.current() == rows(OLD)
    publish(bench, NEW)
    assert bench.current() == rows(NEW)


def test_the_others_go_on_while_one_is_held(bench: Bench) -> None:
    """A rollback of one entity holds that one: others of the next run are published."""
    bench.sync("shop", "files")
    bench.api.records["people"] = NEW
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "new"}])
    bench.sync("shop", "files")
    assert done(bench, "rollback", "people") == {"rolled_back": ["people"]}
    assert bench.current("visits")["1"]["place"] == "new"
    bench.api.records["people"] = NEWER
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "newer"}])
    bench.sync("shop", "files")
    assert bench.current("visits")["1"]["place"] == "newer"
    assert bench.current() == rows(OLD)


def test_publish_publishes_what_the_dry_run_showed(bench: Bench) -> None:
    """A dry run publishes nothing; `publish` then publishes exactly what `diff` showed, though the API has moved on."""
    publish(bench, OLD)
    shown = [person(1, name="shown"), *OLD[1:49], person(51)]
    publish(bench, shown, dry_run=True)
    assert (bench.current(), bench.next()) == (rows(OLD), rows(shown))
    changes = [json.loads(line) for line in bench.call("diff", "people", "--json").stdout.splitlines()]
    assert [(change["change"], change["_key"]) for change in changes] == [
        ("deleted", "50"),
        ("inserted", "51"),
        ("updated", "1"),
    ]
    publish(bench, NEWER, steps=("load",))
    assert list(done(bench, "publish")["published"]) == ["people"]
    assert bench.current() == rows(shown)
    bench.verify()
    publish(bench, NEWER)
    assert bench.current() == rows(NEWER)
    bench.verify()


def test_publish_refuses_what_was_overtaken(bench: Bench) -> None:
    """Where something was published since the dry run, its candidate is refused with exit 3, and current stays."""
    publish(bench, OLD)
    publish(bench, NEW, dry_run=True)
    publish(bench, NEWER)
    before = bench.state()
    refused(bench, "publish")
    assert bench.state() == before


def test_publish_refuses_after_a_run_without_changes(bench: Bench) -> None:
    """Where a later run found nothing to change, the dry run's candidate is out of date, and refused."""
    publish(bench, OLD)
    publish(bench, NEW, dry_run=True)
    publish(bench, OLD)
    refused(bench, "publish")
    assert bench.current() == rows(OLD)
    bench.verify()


@pytest.fixture
def referring(bench: Bench) -> Bench:
    """Visits refer to people; both are published, and a dry run has a new visit of a new person."""
    bench.write(bench.models / "models.yml", REFERRING)
    bench.sync("shop", "files")
    dry_run(bench, 51)
    return bench


def dry_run(bench: Bench, number: int, *sources: str) -> None:
    """Look at one more person, who visits."""
    bench.api.records["people"] = [*people(50), person(number)]
    bench.write_lines("visits.jsonl", [{"id": 1, "place": "here"}, {"id": number, "place": "new"}])
    bench.sync(*(sources or ("shop", "files")), dry_run=True)


def test_a_candidate_is_not_published_without_the_parent_it_was_checked_with(referring: Bench) -> None:
    """A visit of a person who is only in the other candidate is refused, and says how both are published."""
    said = refused(referring, "publish", "visits")
    assert "it was checked with the candidate of people, which is not published with it" in said
    assert "try: Publish them together: syncline publish people visits" in said
    assert set(referring.current("visits")) == {"1", "2"}
    assert set(done(referring, "publish", "people", "visits")["published"]) == {"people", "visits"}
    assert "51" in referring.current("visits")
    # The parent may go first.
    dry_run(referring, 52)
    done(referring, "publish", "people")
    done(referring, "publish", "visits")
    assert set(referring.current("visits")) == {"1", "52"}


def test_a_candidate_whose_parent_was_built_anew_is_refused(referring: Bench) -> None:
    """Where a later run has written over the parent's candidate, only another run makes one to publish."""
    referring.api.records["people"] = people(50, name="newer")
    referring.sync("shop", dry_run=True)
    assert "try: Run again to build a new candidate." in refused(referring, "publish", "visits")
    refused(referring, "publish")
    assert set(referring.current("visits")) == {"1", "2"}


def test_a_candidate_of_a_run_without_its_parent_is_published_alone(referring: Bench) -> None:
    """A run of the visits alone checks them with the people that are published: what these wait for is no matter."""
    referring.write_lines("visits.jsonl", [{"id": 1, "place": "newer"}])
    referring.sync("files", dry_run=True)
    assert list(done(referring, "publish", "visits")["published"]) == ["visits"]
    assert set(referring.current("visits")) == {"1"}


def test_a_failed_run_after_a_dry_run(bench: Bench) -> None:
    """A run that fails while it loads leaves the dry run's candidate to be published."""
    publish(bench, OLD)
    publish(bench, NEW, dry_run=True)
    bench.api.token = "another"
    assert bench.fail().exit_code == 1
    assert list(done(bench, "publish")["published"]) == ["people"]
    assert bench.current() == rows(NEW)
    bench.verify()


@pytest.mark.parametrize("arguments", [["publish"], ["publish", "people"]])
def test_there_is_nothing_to_publish(bench: Bench, arguments: list[str]) -> None:
    """Without candidate and hold, `publish` is refused with exit 3."""
    publish(bench, OLD)
    refused(bench, *arguments)


def test_publish_of_an_unknown_entity_is_wrong_usage(bench: Bench) -> None:
    """A misspelt entity is named, with exit 2, by publish, rollback, verify, diff and run."""
    publish(bench, OLD)
    for arguments in (["publish", "peple"], ["rollback", "peple"], ["verify", "peple"], ["diff", "peple"]):
        ended = bench.call(*arguments)
        assert (ended.returncode, ended.stdout) == (2, ""), (arguments, ended.stderr)
        assert "peple" in ended.stderr
    ended = bench.cli("run", "--entity", "peple")
    assert ended.returncode == 2
    assert "peple" in ended.stderr


def test_a_failed_check_cannot_be_published(bench: Bench) -> None:
    """What failed its checks is no candidate: `publish` is refused."""
    publish(bench, OLD)
    bench.api.records["people"] = people(50, kind="pirate")
    assert bench.fail().exit_code == 3
    refused(bench, "publish")
    assert bench.current() == rows(OLD)


def test_a_trial_is_never_published(bench: Bench) -> None:
    """With a limit the loads stay, the candidate is superseded, next shows current again, and publish is refused."""
    publish(bench, OLD)
    report = publish(bench, NEW, limit=5)
    assert report["streams"]["shop.people"]["kind"] == "increment"
    assert report["streams"]["shop.people"]["changed"] == 5
    assert report["entities"]["people"]["state"] == "superseded"
    assert (bench.current(), bench.next()) == (rows(OLD), rows(OLD))
    assert bench.value("select state from syncline.builds order by build_id desc limit 1") == "superseded"
    refused(bench, "publish")
    bench.verify()
    publish(bench, NEW)
    assert bench.current() == rows(NEW)
    bench.verify()


def test_a_trial_comes_first(bench: Bench) -> None:
    """The very first run may be a trial: current is there and empty; the run after it brings all."""
    publish(bench, NEW, limit=5)
    assert (bench.current(), len(bench.live())) == ({}, 5)
    refused(bench, "publish")
    publish(bench, OLD)
    assert bench.current() == rows(OLD)
    bench.verify()


def test_a_trial_that_fails_its_checks(bench: Bench) -> None:
    """A trial is checked as any run: exit 3, and next shows current again."""
    publish(bench, OLD)
    bench.api.records["people"] = people(50, kind="pirate")
    assert bench.fail(limit=5).exit_code == 3
    assert bench.next() == rows(OLD)
    publish(bench, NEW)
    assert bench.current() == rows(NEW)
    bench.verify()
