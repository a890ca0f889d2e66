"""`publish: each`: what fails holds back itself and what depends on it, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.projects import PRICES, TESTS, Bench, people

CHECKED = (
    TESTS
    + """
  - name: prices
    description: Prices.
    columns:
      - name: amount
        description: How much.
        data_tests: [not_null]
  - name: visits
    description: Visits.
    columns:
      - name: visit_id
        description: Whose.
        data_tests:
          - relationships: {arguments: {to: ref('people'), field: person_id}}
"""
)

NEW_VISITS = [{"id": 1, "place": "new"}, {"id": 2, "place": "new"}]


@pytest.fixture
def shop(bench: Bench) -> Bench:
    """Three entities, published once; visits refer to people, prices to nobody."""
    bench.write(bench.models / "models.yml", CHECKED)
    bench.sync("shop", "files")
    return bench


def places(bench: Bench) -> set[str]:
    return {row["place"] for row in bench.current("visits").values()}


def run_each(bench: Bench, **options: Any) -> dict[str, Any]:
    return bench.run("shop", "files", publish="each", **options)


def test_a_failed_check_holds_back_one_entity(shop: Bench) -> None:
    """The others are published, the run is failed with the guard's exit code, and the failed one stays as it was."""
    shop.write_lines("prices.csv", ["id,amount", "1,", "2,20"])
    shop.write_lines("visits.jsonl", NEW_VISITS)
    shop.api.records["people"] = people(50, name="new")
    report = run_each(shop)
    (error,) = report["errors"]
    assert (report["status"], error["exit_code"]) == ("failed", 3)
    assert error["message"].startswith("not all was published: prices: checks failed: not_null on prices.amount")
    assert places(shop) == {"new"}
    assert {row["name"] for row in shop.current().values()} == {"new"}
    assert shop.current("prices")["1"]["amount"] is not None
    states = {name: entity["state"] for name, entity in report["entities"].items()}
    assert states == {"people": "current", "visits": "current", "prices": "failed"}
    for entity in ("people", "visits", "prices"):
        shop.verify(entity)
    shop.write_lines("prices.csv", ["id,amount", "1,11", "2,20"])
    assert run_each(shop)["errors"] == []
    assert str(shop.current("prices")["1"]["amount"]) == "11"


def test_what_depends_on_a_failure_is_held_back_with_it(shop: Bench) -> None:
    """Visits refer to people: where people fail, both stay as they were, and prices go on."""
    shop.api.records["people"] = people(50, kind="stranger")
    shop.write_lines("visits.jsonl", NEW_VISITS)
    shop.write_lines("prices.csv", ["id,amount", "1,11", "2,20"])
    report = run_each(shop)
    assert report["errors"][0]["message"].startswith("not all was published: people: checks failed")
    assert places(shop) == {"here", "there"}
    assert str(shop.current("prices")["1"]["amount"]) == "11"
    shop.verify("visits")
    shop.api.records["people"] = people(50)
    assert run_each(shop)["errors"] == []
    assert places(shop) == {"new"}


def test_a_child_that_fails_does_not_hold_back_its_parent(shop: Bench) -> None:
    """A visit of nobody fails the visits alone: people do not depend on them."""
    shop.write_lines("visits.jsonl", [{"id": 1, "place": "new"}, {"id": 99, "place": "new"}])
    shop.api.records["people"] = people(50, name="new")
    report = run_each(shop)
    assert "visits: checks failed: relationships" in report["errors"][0]["message"]
    assert places(shop) == {"here", "there"}
    assert {row["name"] for row in shop.current().values()} == {"new"}


def test_a_stream_that_fails_holds_back_what_it_feeds(shop: Bench) -> None:
    """An API that is down fails its entities and what depends on them; the files go on."""
    shop.api.answer = lambda path, page: shop.api.serve("nowhere", page)
    shop.write_lines("visits.jsonl", NEW_VISITS)
    shop.write_lines("prices.csv", ["id,amount", "1,11", "2,20"])
    report = run_each(shop)
    (error,) = report["errors"]
    assert error["message"].startswith("not all was published: shop.people: ")
    assert error["exit_code"] == 1
    assert places(shop) == {"here", "there"}
    assert str(shop.current("prices")["1"]["amount"]) == "11"


def test_a_model_that_fails_holds_back_itself(shop: Bench) -> None:
    """An error in one model's SQL is named, and the others are published."""
    shop.write_model("prices", PRICES.replace("typed('amount', 'numeric')", "typed('amount', 'nonsense')"))
    shop.write_lines("visits.jsonl", NEW_VISITS)
    report = run_each(shop)
    assert report["errors"][0]["message"].startswith("not all was published: prices: ")
    assert places(shop) == {"new"}


def test_a_check_that_cannot_run_holds_back_what_it_judges(shop: Bench) -> None:
    """A test whose SQL fails is a failure of its entity alone."""
    shop.write(shop.tests / "broken.sql", "select nothing from {{ ref('prices') }}")
    shop.write_lines("visits.jsonl", NEW_VISITS)
    report = run_each(shop)
    assert report["errors"][0]["message"].startswith(
        "not all was published: prices: the test broken on prices could not"
    )
    assert places(shop) == {"new"}


def test_a_dry_run_leaves_the_candidates_that_passed(shop: Bench) -> None:
    """What passed waits for `syncline publish`; what failed is withdrawn."""
    shop.write_lines("prices.csv", ["id,amount", "1,", "2,20"])
    shop.write_lines("visits.jsonl", NEW_VISITS)
    run_each(shop, dry_run=True)
    assert places(shop) == {"here", "there"}
    assert {row["place"] for row in shop.next("visits").values()} == {"new"}
    assert shop.next("prices") == shop.current("prices")
    assert shop.cli("publish").returncode == 0
    assert places(shop) == {"new"}


def test_a_rollback_takes_back_what_was_published_together(shop: Bench) -> None:
    """All that one run published goes back at once and is held; the next run publishes the others."""
    shop.write_lines("prices.csv", ["id,amount", "1,", "2,20"])
    shop.write_lines("visits.jsonl", NEW_VISITS)
    run_each(shop)
    assert shop.call("rollback").returncode == 0
    assert places(shop) == {"here", "there"}
    shop.write_lines("prices.csv", ["id,amount", "1,12", "2,20"])
    assert run_each(shop)["errors"] == []
    assert places(shop) == {"here", "there"}
    assert str(shop.current("prices")["1"]["amount"]) == "12"


def test_the_project_may_say_it(shop: Bench) -> None:
    """`vars.syncline.publish` in dbt_project.yml is what runs do; an option goes before it, another word is refused."""
    file = shop.root / "dbt_project.yml"
    before = file.read_text()
    try:
        file.write_text(before + "\nvars:\n  syncline:\n    publish: each\n")
        shop.write_lines("prices.csv", ["id,amount", "1,", "2,20"])
        shop.write_lines("visits.jsonl", NEW_VISITS)
        assert shop.run("shop", "files", publish="together")["errors"][0]["message"].startswith("checks failed")
        assert places(shop) == {"here", "there"}
        assert shop.run("shop", "files")["errors"][0]["message"].startswith("not all was published")
        assert places(shop) == {"new"}
        file.write_text(before + "\nvars:\n  syncline:\n    publish: sometimes\n")
        ended = shop.call("run")
        assert (ended.returncode, "`publish` (`together` or `each`)" in ended.stderr) == (2, True)
    finally:
        file.write_text(before)
