"""The queue's SQL functions: requesting, claiming, retrying, cancelling, handing back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from syncline import control, db
from syncline.errors import ConfigurationError, LostClaimError, RefusedError

Open = Callable[[], db.Connection]


@pytest.fixture
def opened(database: str) -> Iterator[Open]:
    """Opens sessions on a database that knows the sources a, b and c."""
    with ExitStack() as stack:

        def connect() -> db.Connection:
            return stack.enter_context(db.connect(database))

        with db.connect(database) as connection:
            for source in "abc":
                db.call(connection, "create_stream", source, "things")
        yield connect


def request(connection: db.Connection, *sources: str, **options: Any) -> int:
    return control.request_run(connection, list(sources), [], options, "manual")


def claimed(connection: db.Connection, **which: Any) -> int | None:
    run = control.claim_run(connection, **which)
    return run["run_id"] if run else None


def status(connection: db.Connection, run_id: int) -> str:
    return str(control.run_report(connection, run_id)["status"])


def make_due(connection: db.Connection) -> None:
    connection.execute("update syncline.runs set due_at = now()")


FAILED = {"message": "it broke", "hint": None, "exit_code": 1}


def test_identical_requests_coalesce_and_no_others(opened: Open) -> None:
    """Sources in any order and the same options are one run while it waits; another option is another run."""
    connection = opened()
    first = request(connection, "b", "a")
    assert request(connection, "a", "b", "a") == first
    assert request(connection, "a") != first
    assert request(connection, "a", "b", dry_run=True) != first
    assert claimed(connection) == first
    assert request(connection, "a", "b") != first


def test_no_sources_are_all_that_are_declared(opened: Open) -> None:
    """A request that names no source is one of every source, those that left the project excepted."""
    connection = opened()
    db.call(connection, "declare_streams", ["a.things", "c.things"])
    run = control.run_report(connection, request(connection))
    assert run["sources"] == ["a", "c"]


def test_what_does_not_exist_is_refused(opened: Open, connection: db.Connection) -> None:
    """Unknown sources and options, and a request where there is no source at all, are refused with what there is."""
    with pytest.raises(ConfigurationError, match="no source named 'x'") as wrong:
        request(opened(), "a", "x")
    assert "a, b, c" in (wrong.value.hint or "")
    with pytest.raises(ConfigurationError, match="no option named 'dryrun'"):
        request(opened(), "a", dryrun=True)
    connection.execute("delete from syncline.streams")
    with pytest.raises(ConfigurationError, match="there is no source to run"):
        request(connection)


def test_one_run_per_source_at_a_time(opened: Open) -> None:
    """While a run works on a source no other of that source is claimed, and those of others are."""
    one, two, three = opened(), opened(), opened()
    runs = [request(one, "a"), request(one, "a", full_refresh=True), request(one, "b")]
    assert claimed(one) == runs[0]
    assert claimed(two) == runs[2]
    assert claimed(three) is None
    assert control.finish_run(one, "succeeded") == "succeeded"
    assert claimed(three) == runs[1]


def test_an_older_run_of_several_sources_is_not_overtaken(opened: Open) -> None:
    """A run of a and b that waits for a is not starved by runs of b that came later."""
    one, two = opened(), opened()
    request(one, "a")
    assert claimed(one) is not None
    both = request(two, "a", "b")
    later = request(two, "b")
    assert claimed(two) is None
    control.finish_run(one, "succeeded")
    assert claimed(two) == both
    control.finish_run(two, "succeeded")
    assert claimed(two) == later


def test_a_worker_takes_only_its_sources(opened: Open) -> None:
    """A worker of a takes neither the runs of b nor those of both, and is not held up by them."""
    one = opened()
    request(one, "a", "b")
    request(one, "b")
    mine = request(one, "a")
    assert claimed(one, sources=["a"]) == mine


def test_a_failed_run_is_tried_again_with_growing_pauses(opened: Open) -> None:
    """Three attempts, one second and two apart, then it has failed; in between it is not claimed."""
    connection = opened()
    run = request(connection, "a")
    pauses = []
    for attempt in (1, 2, 3):
        make_due(connection)
        assert control.claim_run(connection)["attempt"] == attempt  # type: ignore[index]
        ended = control.finish_run(connection, "failed", FAILED)
        pauses.append(control.seconds_until_due(connection, None))
        assert claimed(connection) is None
    assert ended == "failed"
    assert [round(pause or 0) for pause in pauses] == [1, 2, 0]
    report = control.run_report(connection, run)
    assert (report["status"], report["attempt"], report["errors"]) == ("failed", 3, [FAILED])
    assert [event["event"] for event in db.call(connection, "run_events", run)] == ["sync_retry"] * 2


def test_pauses_end_at_the_longest(opened: Open) -> None:
    """The pause before an attempt never exceeds the second part of the backoff, however many there were."""
    connection = opened()
    db.call(connection, "request_run", p_sources=["a"], p_max_attempts=90)
    connection.execute("update syncline.runs set attempt = 80")
    control.claim_run(connection)
    control.finish_run(connection, "failed", FAILED)
    assert 9 < (control.seconds_until_due(connection, None) or 0) <= 10


@pytest.mark.parametrize("code", [2, 3])
def test_what_would_fail_again_is_not_tried_again(opened: Open, code: int) -> None:
    """A wrong configuration and a guard's refusal end a run at its first attempt."""
    connection = opened()
    request(connection, "a")
    control.claim_run(connection)
    assert control.finish_run(connection, "failed", FAILED | {"exit_code": code}) == "failed"


def test_a_run_whose_session_is_gone_goes_back_to_the_queue(opened: Open, database: str) -> None:
    """The next claim finds it, after its pause another session has it, and the lost one cannot write any more."""
    one, two = opened(), opened()
    run = request(one, "a")
    control.claim_run(one)
    with db.connect(database, run=(run, 1)) as left:
        one.close()
        wait_until(lambda: not control.is_run_alive(two, run))
        assert claimed(two) is None
        assert status(two, run) == "queued"
        make_due(two)
        assert claimed(two) == run
        with pytest.raises(LostClaimError):
            control.begin_step(left, "load")
    assert [event["event"] for event in db.call(two, "run_events", run)] == ["sync_lost"]


def test_a_run_that_was_lost_at_every_attempt_is_abandoned(opened: Open) -> None:
    """It is lost as often as it may be tried, and says so."""
    watching = opened()
    run = request(watching, "a")
    for _ in range(3):
        make_due(watching)
        worker = opened()
        assert claimed(worker) == run
        worker.close()
        wait_until(lambda: not control.is_run_alive(watching, run))
        assert claimed(watching) is None
    report = control.run_report(watching, run)
    assert report["status"] == "abandoned"
    assert "is gone" in report["errors"][0]["message"]


def test_a_lost_run_whose_transaction_goes_on_blocks_nobody(opened: Open, database: str) -> None:
    """A transaction that still holds a lost run's row delays that run alone, not the claims of others."""
    one, two = opened(), opened()
    run = request(one, "a")
    other = request(one, "b")
    control.claim_run(one)
    with db.connect(database, run=(run, 1)) as left, left.transaction():
        control.hold_run(left)
        one.close()
        wait_until(lambda: not control.is_run_alive(two, run))
        two.execute("set statement_timeout = '5s'")
        assert claimed(two) == other
        assert status(two, run) == "running"
    with opened() as three:
        assert claimed(three) is None
        assert status(three, run) == "queued"


def test_a_queued_run_is_cancelled_at_once(opened: Open) -> None:
    """It is never claimed, says who cancelled it, and cannot be cancelled again."""
    connection = opened()
    run = request(connection, "a")
    assert control.cancel_run(connection, run, "ann") == "cancelled"
    assert claimed(connection) is None
    assert control.run_report(connection, run)["errors"][0]["message"] == "cancelled by ann"
    with pytest.raises(RefusedError, match=f"run {run} is cancelled"):
        control.cancel_run(connection, run)
    with pytest.raises(ConfigurationError, match="there is no run 99"):
        control.cancel_run(connection, 99)


def test_cancelling_a_running_run_tells_its_process(opened: Open) -> None:
    """The request is a row and a notification; one whose process is gone by then is cancelled by the next claim."""
    one, two = opened(), opened()
    run = request(one, "a")
    control.claim_run(one)
    two.execute("listen syncline_cancelled")
    assert control.cancel_run(two, run, "ann") == "running"
    assert [int(told.payload) for told in two.notifies(timeout=5, stop_after=1)] == [run]
    assert control.cancelled_by(one, run) == "ann"
    assert control.run_report(two, run)["is_cancelling"] is True
    one.close()
    wait_until(lambda: not control.is_run_alive(two, run))
    assert claimed(two) is None
    assert status(two, run) == "cancelled"


def test_a_run_handed_back_loses_no_attempt(opened: Open) -> None:
    """It is claimed again at once, with a new attempt number and one more to come."""
    one, two = opened(), opened()
    run = request(one, "a")
    control.claim_run(one)
    control.hand_back_run(one)
    again = control.claim_run(two)
    assert again is not None
    assert (again["run_id"], again["attempt"], again["max_attempts"]) == (run, 2, 4)
    session = "select set_config('syncline.run_id', %s, false), set_config('syncline.attempt', '1', false)"
    one.execute(session, (str(run),))
    with pytest.raises(LostClaimError):
        control.begin_step(one, "load")


def test_a_run_that_ended_is_requested_again(opened: Open) -> None:
    """A retry is a new run with the same sources and options that names the old one; a push cannot be had again."""
    connection = opened()
    run = request(connection, "a", "b", dry_run=True)
    with pytest.raises(RefusedError, match="is queued"):
        control.retry_run(connection, run, "api", "ann", "r-1")
    control.claim_run(connection)
    control.finish_run(connection, "failed", FAILED | {"exit_code": 3})
    report = control.run_report(connection, control.retry_run(connection, run, "api", "ann", "r-1"))
    assert (report["retry_of"], report["sources"], report["options"]) == (run, ["a", "b"], {"dry_run": True})
    assert (report["request_id"], report["triggered_by"]) == ("r-1", "ann")
    pushed = request(connection, "c", push="token")
    control.cancel_run(connection, pushed)
    with pytest.raises(RefusedError, match="was a push"):
        control.retry_run(connection, pushed, "api", "ann", "r-2")


def test_a_run_in_the_foreground_is_left_to_its_process(opened: Open) -> None:
    """No worker takes it; once anybody else asks for the same it is everybody's."""
    connection, worker = opened(), opened()
    run = control.request_run(connection, ["a"], [], {}, "cli", is_foreground=True, max_attempts=1)
    assert claimed(worker) is None
    assert request(connection, "a") == run
    assert claimed(worker) == run


def test_a_run_in_the_foreground_whose_process_is_gone_is_abandoned(opened: Open) -> None:
    """Nobody waits for it any more, so after a minute it does not stay in the queue for ever."""
    connection, worker = opened(), opened()
    run = control.request_run(connection, ["a"], [], {}, "cli", is_foreground=True, max_attempts=1)
    worker.execute("update syncline.runs set requested_at = now() - interval '2 minutes'")
    assert claimed(worker) is None
    assert status(worker, run) == "queued"
    connection.close()
    wait_until(lambda: claimed(worker) is None and status(worker, run) == "abandoned")


def test_who_gives_up_leaves_a_run_that_others_asked_for(opened: Open) -> None:
    """A command in the foreground that waits no longer cancels its run, unless somebody else wants the same by then."""
    impatient, other, worker = opened(), opened(), opened()
    for is_wanted in (False, True):
        run = control.request_run(impatient, ["a"], [], {}, "cli", is_foreground=True, max_attempts=1)
        if is_wanted:
            assert request(other, "a") == run
        assert control.leave_queue(impatient, run) is not is_wanted
        assert claimed(worker) == (run if is_wanted else None)


def test_a_request_joins_the_older_of_two_that_wait(opened: Open) -> None:
    """A run that failed and the identical one that was requested meanwhile both wait: a third request is the older."""
    connection = opened()
    first = request(connection, "a")
    control.claim_run(connection)
    second = request(connection, "a")
    assert control.finish_run(connection, "failed", FAILED) == "queued"
    assert request(connection, "a") == first != second


def test_the_shorter_time_holds_for_requests_that_coalesce(opened: Open) -> None:
    """Of two identical requests with different limits of time, the stricter one is the run's."""
    connection = opened()
    for timeout in (None, 60.0, 5.0, 30.0):
        control.request_run(connection, ["a"], [], {}, "api", timeout=timeout)
    claim = control.claim_run(connection)
    assert claim is not None
    assert claim["timeout"].total_seconds() == 5


def test_many_sessions_claim_each_run_once(opened: Open) -> None:
    """Eight sessions that claim at once from 60 runs of three sources never have one twice, nor two of one source."""
    connection = opened()
    for number in range(60):
        request(connection, "abc"[number % 3], limit=number + 1)
    done: list[int] = []
    at_work: set[str] = set()
    clashes: list[str] = []

    def work() -> None:
        session = opened()
        while len(done) < 60:
            run = control.claim_run(session)
            if run is None:
                time.sleep(0.002)
                continue
            (source,) = run["sources"]
            if source in at_work:
                clashes.append(source)
            at_work.add(source)
            done.append(run["run_id"])
            at_work.discard(source)
            control.finish_run(session, "succeeded")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == sorted(set(done))
    assert len(done) == 60
    assert clashes == []


def test_reports_are_found_by_what_they_are(opened: Open) -> None:
    """Runs are listed by status, trigger, source, kind and before a number, newest first."""
    connection = opened()
    runs = [
        request(connection, "a"),
        control.request_run(connection, ["b"], [], {"dry_run": True}, "api"),
        control.request_run(connection, ["a", "b"], [], {"limit": 5}, "webhook"),
    ]
    control.cancel_run(connection, runs[0])

    def found(**which: Any) -> list[int]:
        return [row["run_reports"]["run_id"] for row in db.call(connection, "run_reports", **which)]

    assert found() == runs[::-1]
    assert found(p_limit=1) == [runs[2]]
    assert found(p_statuses=["cancelled"]) == [runs[0]]
    assert found(p_triggers=["api", "webhook"]) == [runs[2], runs[1]]
    assert found(p_source="b") == [runs[2], runs[1]]
    assert found(p_kinds=["trial"]) == [runs[2]]
    assert found(p_before=runs[2]) == [runs[1], runs[0]]


def test_old_log_events_are_pruned(opened: Open) -> None:
    """Events older than the age go, the others stay."""
    connection = opened()
    control.log(connection, "info", "old")
    connection.execute("update syncline.log_events set logged_at = now() - interval '31 days'")
    control.log(connection, "info", "new")
    assert db.call_value(connection, "prune_log") == 1
    assert [row["event"] for row in connection.execute("select event from syncline.log_events")] == ["new"]


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)
