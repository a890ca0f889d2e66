"""The numbers for monitoring: what counts, what is measured, how they are shown, and who may see them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from syncline import control, db
from syncline.api.metrics import DURATIONS, OPEN, SHOWN, is_open
from syncline.errors import ConfigurationError
from syncline.tokens import create_token
from tests.driver import Driver, people, person
from tests.serving import Client, bearer, in_process


def shown(api: Client) -> dict[str, float]:
    """All samples of ours: name and labels to value; the text is what Prometheus' own parser takes."""
    answer = api.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            place = name(sample.name, sample.labels)
            assert place not in samples, f"twice: {place}"
            samples[place] = sample.value
    return samples


def name(metric: str, labels: Mapping[str, str]) -> str:
    return metric + "".join(f" {label}={value}" for label, value in sorted(labels.items()))


def run(connection: db.Connection, status: str = "succeeded", **options: Any) -> int:
    """Request a run of all sources, and end it so."""
    run_id = control.request_run(connection, [], [], options, "api", max_attempts=1)
    assert control.claim_run(connection, run_id)
    error = {"message": "it broke", "hint": None, "exit_code": 1} if status == "failed" else None
    control.finish_run(connection, status, error)
    return run_id


def value(connection: db.Connection, metric: str, **labels: str) -> float | None:
    """A value of the SQL function."""
    rows = [row for row in db.call(connection, "metrics") if row["metric"] == metric and row["labels"] == labels]
    assert len(rows) <= 1
    return rows[0]["value"] if rows else None


def test_runs_are_counted_as_they_end(driver: Driver) -> None:
    """Ended runs by sources, kind, trigger and status, with a histogram whose last bucket is their number."""
    with in_process(driver) as api:
        run(driver.connection)
        run(driver.connection)
        run(driver.connection, "failed")
        run(driver.connection, dry_run=True)
        waiting = control.request_run(driver.connection, ["files"], [], {"limit": 5}, "manual")
        samples = shown(api)
        kind = "kind=sync sources=files status="
        assert samples[f"syncline_runs_total {kind}succeeded trigger=api"] == 2
        assert samples[f"syncline_runs_total {kind}failed trigger=api"] == 1
        assert samples["syncline_runs_total kind=dry run sources=files status=succeeded trigger=api"] == 1
        assert not any("trial" in place for place in samples)
        assert samples[f"syncline_run_duration_seconds_count {kind}succeeded"] == 2
        assert samples["syncline_run_duration_seconds_bucket kind=sync le=+Inf sources=files status=succeeded"] == 2
        assert samples["syncline_run_duration_seconds_bucket kind=sync le=1.0 sources=files status=succeeded"] == 2
        assert 0 < samples[f"syncline_run_duration_seconds_sum {kind}succeeded"] < 2
        control.cancel_run(driver.connection, waiting, "me")
        samples = shown(api)
        assert samples["syncline_runs_total kind=trial sources=files status=cancelled trigger=manual"] == 1
        assert not any("duration" in place and "trial" in place for place in samples)


def test_a_duration_falls_into_its_bucket(driver: Driver) -> None:
    """A run of 45 seconds is in the buckets from 60 seconds on, and in the sum."""
    run_id = control.request_run(driver.connection, [], [], {}, "api", max_attempts=1)
    control.claim_run(driver.connection, run_id)
    driver.connection.execute("update syncline.runs set started_at = now() - interval '45 seconds'")
    control.finish_run(driver.connection, "succeeded")
    buckets = {
        float(row["labels"]["le"]): row["value"]
        for row in db.call(driver.connection, "metrics")
        if row["metric"] == "run_buckets"
    }
    assert [buckets[bound] for bound in (1, 30, 60, 120, float("inf"))] == [0, 0, 1, 1, 1]
    taken = value(driver.connection, "run_seconds", kind="sync", sources="files", status="succeeded")
    assert taken == pytest.approx(45, abs=2)


def test_counters_do_not_fall(driver: Driver) -> None:
    """Runs, loads and builds that are deleted stay counted, and a rollback takes nothing back."""
    driver.sync(people(20))
    driver.sync([person(1, name="new"), *people(19)[1:]])
    with in_process(driver) as api:
        before = {place: number for place, number in shown(api).items() if "_total" in place and "process" not in place}
        assert before["syncline_rows_total entity=people kind=inserted"] == 20
        assert before["syncline_rows_total entity=people kind=updated"] == 1
        assert before["syncline_rows_total entity=people kind=deleted"] == 1
        assert before["syncline_records_total kind=read source=files stream=people"] == 39
        assert before["syncline_records_total kind=changed source=files stream=people"] == 1
        driver.connection.execute("select syncline.rollback('people')")
        driver.connection.execute("delete from syncline.runs")
        driver.connection.execute("delete from syncline.loads where load_id = 1")
        after = shown(api)
    assert {place: after[place] for place in before if "python_gc" not in place} == {
        place: number for place, number in before.items() if "python_gc" not in place
    }


def test_a_candidate_counts_when_it_is_published(driver: Driver) -> None:
    """Rows that a build wrote and nobody can read are not counted; publishing counts them once."""
    driver.load(people(5))
    build = driver.build()
    assert value(driver.connection, "rows", entity="people", kind="inserted") is None
    driver.publish(build)
    assert value(driver.connection, "rows", entity="people", kind="inserted") == 5
    driver.load(people(5))
    driver.publish(driver.build())
    assert value(driver.connection, "rows", entity="people", kind="inserted") == 5


def test_freshness_is_the_time_of_the_load_that_confirmed_what_is_published(driver: Driver) -> None:
    """A load alone refreshes its stream; the entity is fresh once a build has found it equal, or was published."""

    def ages() -> tuple[float, float]:
        entity = value(driver.connection, "entity_freshness", entity="people")
        stream = value(driver.connection, "stream_freshness", source="files", stream="people")
        assert entity is not None
        assert stream is not None
        return entity, stream

    driver.sync(people(5))
    driver.connection.execute("update syncline.loads set started_at = now() - interval '1 hour'")
    published = value(driver.connection, "entity_published", entity="people")
    assert ages() == (pytest.approx(3600, abs=30), pytest.approx(3600, abs=30))
    driver.load(people(5))
    assert ages() == (pytest.approx(3600, abs=30), pytest.approx(0, abs=30))
    assert driver.build() is None
    assert ages() == (pytest.approx(0, abs=30), pytest.approx(0, abs=30))
    assert value(driver.connection, "entity_published", entity="people") == published
    driver.connection.execute("update syncline.loads set started_at = now() - interval '1 hour'")
    driver.load(people(6))
    candidate = driver.build()
    assert ages()[0] == pytest.approx(3600, abs=30)
    driver.publish(candidate)
    assert ages()[0] == pytest.approx(0, abs=30)


def test_a_reader_is_as_old_as_what_it_reads(driver: Driver) -> None:
    """An entity that reads another has its freshness, however the other moves on."""
    driver.sync(people(5))
    driver.connection.execute(
        """
        insert into syncline.entities (entity, schema_name) values ('reader', 'public');
        with built as (
            insert into syncline.builds (
                entity, version, state, loads, inputs, signature, columns, is_written_anew, rows_total, rows_inserted,
                rows_updated, rows_deleted, rows_unchanged, keys_rejected, publication_id
            )
            select 'reader', 1, 'current', '{}', jsonb_build_object('people', current_build), '', '[]', true,
                0, 0, 0, 0, 0, 0, (select max(publication_id) from syncline.publications)
            from syncline.entities where entity = 'people'
            returning build_id
        )
        update syncline.entities set current_build = built.build_id from built where entity = 'reader';
        update syncline.loads set started_at = now() - interval '2 hours'
        """
    )
    assert value(driver.connection, "entity_freshness", entity="reader") == pytest.approx(7200, abs=30)
    driver.sync(people(6))
    assert value(driver.connection, "entity_freshness", entity="reader") == pytest.approx(0, abs=30)


def test_the_queue_and_what_is_wrong(driver: Driver) -> None:
    """Runs that wait and are worked, ages, row errors by severity, tokens that end soon; zeros where there is none."""
    connection = driver.connection
    with in_process(driver) as api:
        empty = shown(api)
        assert empty["syncline_queue_runs status=queued"] == empty["syncline_queue_runs status=running"] == 0
        assert empty["syncline_queue_oldest_seconds"] == empty["syncline_tokens_expiring"] == 0
        assert empty["syncline_incidents kind=run_failed"] == empty["syncline_schedules_missed"] == 0
        driver.load([person(1, age="old"), person(2), b"no json"])
        driver.build()
        control.request_run(connection, [], [], {}, "api")
        control.request_run(connection, [], [], {"dry_run": True}, "api")
        create_token(connection, "soon", "viewer", expires_in=timedelta(days=1))
        connection.execute("update syncline.runs set due_at = now() - interval '90 seconds'")
        with db.connect(driver.dsn) as worker:
            assert control.claim_run(worker)
            connection.execute("update syncline.runs set started_at = now() - interval '30 s' where status = 'running'")
            samples = shown(api)
    assert samples["syncline_queue_runs status=queued"] == samples["syncline_queue_runs status=running"] == 1
    assert samples["syncline_queue_oldest_seconds"] == pytest.approx(90, abs=20)
    assert samples["syncline_running_oldest_seconds"] == pytest.approx(30, abs=20)
    assert samples["syncline_row_errors entity=people severity=warning source=files stream=people"] == 1
    assert samples["syncline_row_errors entity= severity=error source=files stream=people"] == 1
    assert samples["syncline_tokens_expiring"] == 1
    assert samples["process_resident_memory_bytes"] > 0


def test_metrics_ask_for_a_token_unless_they_are_open(driver: Driver) -> None:
    """A viewer's token is enough; SYNCLINE_METRICS_OPEN=1 asks for none; another word is refused."""
    viewer = create_token(driver.connection, "prometheus", "viewer").token
    with in_process(driver, as_admin=False) as api:
        assert api.get("/metrics").status_code == 401
        assert api.get("/metrics", headers=bearer("wrong")).status_code == 401
        assert api.get("/metrics", headers=bearer(viewer)).status_code == 200
        environment = api.state.project.environment
        environment[OPEN] = "1"
        try:
            assert api.get("/metrics").status_code == 200
        finally:
            del environment[OPEN]
    assert [is_open({OPEN: text}) for text in ("", "0", "1")] == [False, False, True]
    with pytest.raises(ConfigurationError, match=OPEN):
        is_open({OPEN: "yes"})


def test_a_hundred_thousand_runs_are_read_in_fifty_milliseconds(driver: Driver) -> None:
    """All numbers over 100,000 runs and 20,000 open row errors come within 50 ms."""
    connection = driver.connection
    driver.sync(people(5))
    connection.execute(
        """
        insert into syncline.runs (status, trigger, request_id, sources, started_at, finished_at, options)
        select case when n % 9 = 0 then 'failed' else 'succeeded' end, (array['cli', 'api', 'scheduler'])[1 + n % 3],
            n::text, array['s' || n % 5], now() - n % 400 * interval '1 second', now(), '{}'
        from generate_series(1, 100000) as n;
        insert into syncline.totals (metric, labels, value)
        select added.metric, added.labels, sum(added.amount)
        from syncline.runs as run cross join lateral syncline.totals_of_run(run) as added
        where run.request_id ~ '^[0-9]+$'
        group by 1, 2;
        insert into syncline.row_errors (source, stream, entity, _key, message, severity)
        select 'files', 'people', 'people', n::text, 'no number', 'warning' from generate_series(1, 20000) as n;
        """
    )
    connection.execute("vacuum analyze")
    times = []
    for _ in range(7):
        began = time.perf_counter()
        rows = db.call(connection, "metrics")
        times.append(time.perf_counter() - began)
    counted = sum(row["value"] for row in rows if row["metric"] == "runs")
    assert counted == 100_001
    assert sorted(times)[3] < 0.05, [round(seconds * 1000) for seconds in times]
    print(json.dumps({"metrics_ms": [round(seconds * 1000, 1) for seconds in times]}))


def test_the_docs_name_every_metric() -> None:
    """monitor.md has a row for each, with its labels."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "monitor.md").read_text(encoding="utf-8")
    for metric in (*SHOWN.values(), DURATIONS):
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{metric.name}{'_total' * metric.is_counter}` | {labels + ' ' * bool(labels)}|" in page
