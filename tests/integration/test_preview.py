"""Dry runs and trials: what a run would change is shown as it stands, and published as it was shown or not at all."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from syncline import control, db
from syncline.preview import Preview, in_pieces
from tests.projects import Bench, people, person, rows

OLD = people(50)
NEW = [person(1, name="new", age=None), *OLD[1:49], person(51), person(52)]


def lines_of(ended: subprocess.CompletedProcess[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The changes that a run prints as JSON lines, and the run."""
    *changes, run = [json.loads(line) for line in ended.stdout.splitlines()]
    return changes, run


def test_a_dry_run_shows_what_it_would_change(bench: Bench) -> None:
    """Counts, keys, old and new by field, row errors, what is left as it is, and what to do next, in plain text."""
    bench.sync("shop", "files")
    bench.api.records["people"] = [*NEW[:-1], person(52, born="unknown", name="[red]\x1b[31m" + "x" * 200)]
    ended = bench.cli("run", "shop", "files", "--dry-run")
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = ended.stdout.splitlines()
    assert "what `syncline publish` would change:" in shown
    assert "people: 2 inserted, 1 updated, 1 deleted, 1 row error" in shown
    assert {"visits: no row changes", "prices: no row changes"} <= set(shown)
    start = shown.index("- 50")
    assert shown[start + 1 : start + 3] == ["    person_id: 50", '    name: "name 50"']
    updated = shown.index('~ 1  (email "p1@example.com")')
    assert shown[updated + 1 : updated + 3] == ['    name: "name 1" → "new"', "    age: 21 → null"]
    (name,) = [line for line in shown if line.startswith('    name: "[red]')]
    assert len(name) < 110
    assert name.endswith("x…")
    assert "\x1b" not in ended.stdout
    assert shown[-1].startswith("next: `syncline publish` publishes exactly this, `syncline errors`")
    assert bench.current() == rows(OLD)
    assert bench.value("select count(*) from syncline.builds where state = 'checked'") == 1


def test_a_sample_is_of_each_kind(bench: Bench) -> None:
    """`--sample` says how many rows of each kind are shown, and how many more there are is told."""
    bench.sync()
    bench.api.records["people"] = [*people(40, name="new"), *(person(number) for number in range(51, 71))]
    ended = bench.cli("run", "--dry-run", "--sample", "2", "shop")
    marks = [line[0] for line in ended.stdout.splitlines() if line[:2] in {"+ ", "- ", "~ "}]
    assert marks == ["-", "-", "+", "+", "~", "~"]
    assert "… and 18 inserted, 38 updated, 8 deleted" in ended.stdout.splitlines()
    ended = bench.cli("run", "--sample", "2")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--sample belongs to --dry-run" in ended.stderr


def test_json_lines_are_every_change_and_then_the_run(bench: Bench) -> None:
    """`--json` prints a line for each changed row, and the run at the end; `publish` makes exactly that current."""
    bench.sync()
    bench.api.records["people"] = NEW
    ended = bench.cli("run", "shop", "--dry-run", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    changes, run = lines_of(ended)
    assert [(line["entity"], line["change"], line["key"]) for line in changes] == [
        ("people", "deleted", "50"),
        ("people", "inserted", "51"),
        ("people", "inserted", "52"),
        ("people", "updated", "1"),
    ]
    assert set(changes[0]) == {"entity", "change", "key", "unique_key", "old", "new"}
    assert (changes[3]["old"], changes[3]["new"]) == ({"name": "name 1", "age": 21}, {"name": "new", "age": None})
    assert changes[0]["new"] is None
    assert (run["status"], run["kind"], run["entities"]["people"]["state"]) == ("succeeded", "dry run", "checked")

    bench.api.records["people"] = people(50, name="later")
    bench.sync(steps=("load",))
    before, after = rows(OLD), bench.call("publish", "--json")
    assert list(json.loads(after.stdout)["published"]) == ["people"]
    assert bench.current() == rows(NEW)
    assert {key for key in before | bench.current() if before.get(key) != bench.current().get(key)} == {
        line["key"] for line in changes
    }
    bench.verify()


def test_a_run_that_publishes_prints_one_object(bench: Bench) -> None:
    """Without --dry-run `run --json` stays the run alone."""
    changes, run = lines_of(bench.cli("run", "shop", "--json"))
    assert (changes, run["kind"]) == ([], "sync")


def test_a_trial_shows_what_its_records_would_change(bench: Bench) -> None:
    """`--limit` shows rows too, though its candidate is gone at its end; nothing can be published then."""
    bench.sync()
    bench.api.records["people"] = people(50, name="new")
    ended = bench.cli("run", "shop", "--limit", "3")
    assert ended.returncode == 0, ended.stderr
    assert "what these records would change:" in ended.stdout
    assert "people: 3 updated" in ended.stdout.splitlines()
    assert '    name: "name 2" → "new"' in ended.stdout
    assert "a trial is never published" in ended.stdout
    changes, run = lines_of(bench.cli("run", "shop", "--limit", "3", "--json"))
    assert [line["key"] for line in changes] == ["1", "2", "3"]
    assert run["entities"]["people"]["state"] == "superseded"
    assert bench.call("publish").returncode == 3
    assert bench.current() == rows(OLD)
    bench.verify()


def test_the_first_run_may_be_dry(bench: Bench) -> None:
    """With nothing published yet, every row is inserted."""
    changes, _ = lines_of(bench.cli("run", "shop", "--dry-run", "--json"))
    assert {line["change"] for line in changes} == {"inserted"}
    assert len(changes) == 50
    assert bench.current() == {}


@pytest.mark.parametrize("arguments", [[], ["--publish", "each"]])
def test_a_check_that_fails_in_a_dry_run(bench: Bench, arguments: list[str]) -> None:
    """The candidate's rows are shown, then the check that failed with the keys that it found; exit 3."""
    bench.sync()
    bench.api.records["people"] = [person(1, kind="pirate"), *OLD[1:]]
    ended = bench.cli("run", "shop", "--dry-run", *arguments)
    assert ended.returncode == 3
    assert "what the candidates would have changed:" in ended.stdout
    assert '    kind: "guest" → "pirate"' in ended.stdout
    assert "accepted_values" in ended.stderr
    assert "_key 1" in ended.stderr
    changes, run = lines_of(bench.cli("run", "shop", "--dry-run", "--json", *arguments))
    assert [(line["key"], line["new"]) for line in changes] == [("1", {"kind": "pirate"})]
    assert (run["status"], run["errors"][0]["exit_code"]) == ("failed", 3)
    assert bench.call("publish").returncode == 3
    assert bench.current() == rows(OLD)


def test_a_rollback_in_between(bench: Bench) -> None:
    """A dry run has used the way back up: a rollback is refused, and what was shown can still be published."""
    bench.sync()
    bench.api.records["people"] = people(50, name="second")
    bench.sync()
    bench.api.records["people"] = NEW
    bench.sync(dry_run=True)
    assert bench.call("rollback").returncode == 3
    assert bench.call("publish").returncode == 0
    assert bench.current() == rows(NEW)


def test_a_dry_run_after_a_rollback(bench: Bench) -> None:
    """A dry run after a rollback is of what is current then, and publishes exactly that."""
    bench.sync()
    bench.api.records["people"] = people(50, name="second")
    bench.sync()
    assert bench.call("rollback").returncode == 0
    bench.api.records["people"] = NEW
    changes, _ = lines_of(bench.cli("run", "shop", "--dry-run", "--json"))
    assert [line["key"] for line in changes] == ["50", "51", "52", "1"]
    assert bench.call("publish").returncode == 0
    assert bench.current() == rows(NEW)
    bench.verify()


def test_another_publish_in_between(bench: Bench) -> None:
    """Where another run has published since, `publish` refuses what was shown, and says so; current stays."""
    bench.sync()
    bench.api.records["people"] = NEW
    (shown, _) = lines_of(bench.cli("run", "shop", "--dry-run", "--json"))
    assert len(shown) == 4
    bench.api.records["people"] = people(50, name="another")
    bench.sync()
    ended = bench.call("publish", "people")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert bench.current() == rows(people(50, name="another"))


def test_builds_named_are_those_that_are_published(bench: Bench) -> None:
    """The build that a dry run made cannot be published once another has taken its place: SY303."""
    bench.sync()
    bench.api.records["people"] = NEW
    bench.sync(dry_run=True)
    build = bench.value("select next_build from syncline.entities where entity = 'people'")
    bench.api.records["people"] = people(50, name="another")
    bench.sync(dry_run=True)
    with bench.connect() as connection, pytest.raises(Exception, match="another build has taken its place"):
        db.call(connection, "publish", [build])
    assert bench.current() == rows(OLD)


def test_a_dry_run_waits_for_who_writes_its_entities(bench: Bench) -> None:
    """While another has the entity a dry run waits, and then shows what differs from what was published meanwhile."""
    bench.sync()
    bench.api.records["people"] = NEW
    bench.sync(dry_run=True)
    with bench.connect() as other:
        control.lock_entities(other, ["people"])
        bench.api.records["people"] = [*NEW[:-1], person(52, name="last")]
        started = bench.start("run", "shop", "--dry-run", "--json")
        bench.wait_for_lock("lock_entities")
        assert bench.call("publish").returncode == 0
        control.unlock_entities(other, ["people"])
    said, errors = started.communicate(timeout=60)
    assert started.returncode == 0, errors
    changes, _ = lines_of(subprocess.CompletedProcess([], 0, said))
    assert [(line["key"], line["old"], line["new"]) for line in changes] == [
        ("52", {"name": "name 52"}, {"name": "last"})
    ]


def test_a_preview_is_of_the_moment_it_was_taken(bench: Bench) -> None:
    """Rows that are read late are those that stood when the run looked, whatever was built since; nobody waits."""
    bench.sync()
    bench.api.records["people"] = people(3000)
    run_id = bench.sync(dry_run=True)["run_id"]
    with Preview(bench.dsn, None) as preview:
        preview.look(run_id)
        bench.api.records["people"] = people(50, name="another")
        bench.sync(allow_mass_delete=True)
        changes = [json.loads(line) for line in b"".join(in_pieces(preview.lines())).splitlines()]
    assert len(changes) == 2950
    assert {(line["change"], line["new"]["name"] == f"name {line['key']}") for line in changes} == {("inserted", True)}


def test_a_candidate_that_is_gone_is_counted_and_not_shown(bench: Bench) -> None:
    """A preview that is taken too late tells the run's counts, and shows no other candidate's rows."""
    bench.sync()
    bench.api.records["people"] = NEW
    run_id = bench.sync(dry_run=True)["run_id"]
    bench.api.records["people"] = people(50, name="another")
    bench.sync(dry_run=True)
    with Preview(bench.dsn, 5) as preview:
        preview.look(run_id)
        (candidate,) = preview.candidates or []
    assert candidate.counts == {"inserted": 2, "updated": 1, "deleted": 1}
    assert (candidate.summary, list(candidate.changes)) == (None, [])


def test_diff_looks_like_the_dry_run(bench: Bench) -> None:
    """`syncline diff` shows the same rows in the same form, as long as the candidate waits."""
    bench.sync()
    bench.api.records["people"] = NEW
    shown = bench.cli("run", "shop", "--dry-run").stdout.splitlines()
    diff = bench.call("diff", "people").stdout.splitlines()
    assert diff[0] == "people: the candidate against current: 2 inserted, 1 updated, 1 deleted"
    start = shown.index("people: 2 inserted, 1 updated, 1 deleted")
    assert diff[1:] == shown[start + 1 : start + len(diff)]
    limited = bench.call("diff", "people", "--limit", "1").stdout.splitlines()
    assert limited[-2:] == ["… and 2 inserted, 1 updated", "--limit N shows more, --json all"]
