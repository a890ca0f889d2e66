"""Ordinary models downstream of entities: built when they are behind, named when they fail."""

from __future__ import annotations

from tests.projects import Bench, people

COUNTS = """
{{ config(materialized='table') }}
select count(*) as people, min(name) as first_name from {{ ref('people') }}
"""


def counted(bench: Bench) -> tuple[int, str]:
    row = bench.query("select * from counts")[0]
    return row["people"], row["first_name"]


def test_a_new_model_is_built_by_the_next_run(bench: Bench) -> None:
    """A model written after the last publish is built though nothing else changed; then it is left alone."""
    bench.sync()
    bench.write_model("counts", COUNTS)
    bench.sync()
    assert counted(bench) == (50, "name 1")
    before = bench.query("select * from syncline.downstream")
    bench.sync()
    assert bench.query("select * from syncline.downstream") == before


def test_a_model_that_failed_is_built_once_it_is_mended(bench: Bench) -> None:
    """The run says that the entities are published; the next one builds the model from them."""
    bench.write_model("counts", COUNTS)
    bench.sync()
    bench.api.records["people"] = people(49, name="new")
    bench.write_model("counts", COUNTS.replace("min(name)", "min(nome)"))
    error = bench.fail()
    assert error.message.startswith("what was checked is published, but a model downstream failed: counts")
    assert error.exit_code == 1
    assert len(bench.current()) == 49
    bench.write_model("counts", COUNTS)
    bench.sync()
    assert counted(bench) == (49, "new")


def test_what_is_published_is_announced_though_a_model_fails(bench: Bench) -> None:
    """Listeners hear of a publication whatever becomes of the models behind it."""
    bench.write_model("counts", COUNTS.replace("min(name)", "min(nome)"))
    with bench.connect() as listener:
        listener.execute("listen syncline_published")
        bench.fail()
        assert [note.channel for note in listener.notifies(timeout=5, stop_after=1)] == ["syncline_published"]


def test_a_model_that_was_dropped_is_made_again(bench: Bench) -> None:
    """What is not there is behind."""
    bench.write_model("counts", COUNTS)
    bench.sync()
    with bench.connect() as connection:
        connection.execute("drop table counts")
    bench.sync()
    assert counted(bench) == (50, "name 1")


def test_a_rollback_is_followed_by_the_next_run(bench: Bench) -> None:
    """A table is built from what is published again, held or not."""
    bench.write_model("counts", COUNTS)
    bench.sync()
    bench.api.records["people"] = people(50, name="new")
    bench.sync()
    assert counted(bench) == (50, "new")
    assert bench.call("rollback").returncode == 0
    bench.sync()
    assert counted(bench) == (50, "name 1")
