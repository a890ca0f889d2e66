"""What is written to the log: its forms, its ids, and what is kept out of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
import requests
import structlog

from syncline import logs
from syncline.errors import ConfigurationError, RunError
from syncline.masking import Mask

SECRET = "t0ken-that-must-not-show"
MASK = Mask(["API_TOKEN"], {"API_TOKEN": SECRET})
RUN = {"run_id": 7, "request_id": "r-1", "triggered_by": "ada", "attempt": 1}


class Written:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


class Quiet(BaseHTTPRequestHandler):
    """Answers nothing but that it cannot, and does not write that anywhere."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """Standard error, no terminal; logging and structlog are put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield Written(capsys)
    root.handlers[:], root.level = before
    logging.getLogger("uvicorn.access").disabled = False
    structlog.reset_defaults()


def lines(stderr: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_lines_are_json_where_nobody_looks(stderr: Written) -> None:
    """Events of structlog and of logging have the same fields: time in UTC, level, logger, event."""
    logs.configure(environment={})
    structlog.get_logger("syncline.here").info("began", stream="shop.people", count=3)
    logging.getLogger("uvicorn.error").warning("Started %s", "server")
    ours, theirs = lines(stderr)
    assert ours["event"] == "began"
    assert (ours["level"], ours["logger"], ours["stream"], ours["count"]) == ("info", "syncline.here", "shop.people", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("Started server", "warning", "uvicorn.error")
    for line in (ours, theirs):
        age = datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])
        assert 0 <= age.total_seconds() < 60


def test_lines_are_text_where_that_is_asked_for(stderr: Written) -> None:
    """SYNCLINE_LOG_FORMAT=text; `as_json` goes before it."""
    logs.configure(environment={"SYNCLINE_LOG_FORMAT": "text"})
    structlog.get_logger().info("began", stream="shop.people")
    assert "began" in stderr.getvalue()
    assert "stream=shop.people" in stderr.getvalue()
    assert not stderr.getvalue().startswith("{")
    logs.configure(as_json=True, environment={"SYNCLINE_LOG_FORMAT": "text"})
    structlog.get_logger().info("again")
    assert json.loads(stderr.getvalue().splitlines()[-1])["event"] == "again"


def test_addresses_that_libraries_call_are_not_written(stderr: Written) -> None:
    """At debug, neither httpx nor requests, with which alerts are sent, names the address that it calls."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        logs.configure(environment={"SYNCLINE_LOG_LEVEL": "debug"})
        address = f"http://127.0.0.1:{server.server_port}/bot{SECRET}"
        assert requests.get(address, timeout=5).status_code == httpx.get(address).status_code == 501
        server.shutdown()
    structlog.get_logger().debug("called")
    assert [line["event"] for line in lines(stderr)] == ["called"]


def test_the_level_says_what_is_written(stderr: Written) -> None:
    """Below SYNCLINE_LOG_LEVEL nothing is, of ours and of others."""
    logs.configure(environment={"SYNCLINE_LOG_LEVEL": "warning"})
    structlog.get_logger().info("quiet")
    logging.getLogger("uvicorn").info("quiet")
    structlog.get_logger().error("loud")
    assert [line["event"] for line in lines(stderr)] == ["loud"]
    logs.configure(environment={"SYNCLINE_LOG_LEVEL": "DEBUG"})
    structlog.get_logger().debug("whisper")
    assert lines(stderr)[-1]["event"] == "whisper"


@pytest.mark.parametrize("name", ["SYNCLINE_LOG_LEVEL", "SYNCLINE_LOG_FORMAT"])
def test_words_that_are_none_are_refused(name: str, stderr: Written) -> None:
    """The error names the variable and what it may be."""
    with pytest.raises(ConfigurationError, match=name):
        logs.configure(environment={name: "loud"})
    assert stderr.getvalue() == ""


def test_secrets_are_masked_wherever_they_are(stderr: Written) -> None:
    """In the event, in fields however deep, in objects, in logging's arguments; in both forms."""
    for form in ("json", "text"):
        logs.configure(mask=MASK, environment={"SYNCLINE_LOG_FORMAT": form})
        log = structlog.get_logger()
        log.info(f"asked with {SECRET}", url=f"https://x/?t={SECRET}", deep={"a": [SECRET, {"b": (SECRET,)}]}, n=1)
        log.info("an object", it=RunError(SECRET))
        logging.getLogger("other").error("refused %s", SECRET)
    assert SECRET not in stderr.getvalue()
    first = json.loads(stderr.getvalue().splitlines()[0])
    assert first["event"] == "asked with ${API_TOKEN}"
    assert first["deep"] == {"a": ["${API_TOKEN}", {"b": ["${API_TOKEN}"]}]}
    assert first["n"] == 1


def test_an_error_shows_its_way_and_not_its_words(stderr: Written) -> None:
    """A foreign error's text may quote a record: type and places are written; our own messages hold no values."""
    logs.configure(mask=MASK, environment={})

    def fail(error: Exception) -> None:
        raise error

    for error in (ValueError("a value of a record"), RunError(f"refused by {SECRET}")):
        try:
            fail(error)
        except Exception:
            structlog.get_logger().exception("went_wrong")
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert "a value of a record" not in stderr.getvalue()
    ours, theirs, own, _ = lines(stderr)
    for line in (ours, theirs):
        assert line["error"] == "ValueError"
        assert line["at"][-1].startswith("test_logs.py:")
        assert line["at"][-1].endswith(" fail")
    assert own["error_message"] == "refused by ${API_TOKEN}"


def test_chatty_libraries_are_quiet(stderr: Written) -> None:
    """Requests with their queries, and uvicorn's own lines of requests, are not written."""
    logs.configure(environment={"SYNCLINE_LOG_LEVEL": "debug"})
    logging.getLogger("httpx").info("HTTP Request: GET https://x/?token=abc")
    logging.getLogger("apprise").warning("the service answered")
    logging.getLogger("uvicorn.access").info("GET /?token=abc")
    assert stderr.getvalue() == ""


def test_the_watcher_writes_a_run_with_its_ids(stderr: Written) -> None:
    """Every line of a run carries run_id, request_id and triggered_by; each thing is one line."""
    logs.configure(environment={})
    watcher = logs.LogWatcher(RUN)
    watcher.event("info", "sync_start", {"run_id": 7, "sources": ["shop"]})
    watcher.step("load")
    watcher.stream_done("shop.people", {"records_read": 3})
    watcher.event("info", "stream_loaded", {"stream": "shop.people", "read": 3})
    watcher.entities(["people"])
    watcher.entity("people", "building")
    watcher.entity("people", "built")
    watcher.entity("visits", "failed")
    watcher.waiting([6])
    watcher.note("held back")
    watcher.event("error", "sync_fail", {"message": "it broke"})
    found = lines(stderr)
    assert [line["event"] for line in found] == [
        *("sync_start", "step", "stream_loaded", "entities", "entity_built", "entity_failed"),
        *("run_waiting", "note", "sync_fail"),
    ]
    for line in found:
        assert (line["run_id"], line["request_id"], line["triggered_by"]) == (7, "r-1", "ada")
    assert (found[5]["level"], found[7]["message"], found[8]["level"]) == ("error", "held back", "error")


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_others_say_in_several_lines_is_one(stderr: Written, form: str) -> None:
    """The pool of psycopg warns with line ends and tabs: they are blanks in the log."""
    logs.configure(environment={"SYNCLINE_LOG_FORMAT": form})
    logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "syncline", "no socket\n\tIs it there?")
    (line,) = stderr.getvalue().splitlines()
    assert "error connecting in 'syncline': no socket Is it there?" in line


def test_progress_is_a_line_now_and_then(stderr: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream's at most every ten seconds, not at its beginning."""
    logs.configure(environment={})
    watcher = logs.LogWatcher(RUN)
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    for now in (100.0, 101.0, 109.9, 110.0, 111.0, 120.1):
        watcher.stream_progress("shop.people", int(now))
        watcher.stream_progress("shop.visits", 1)
    assert [(line["stream"], line["records"]) for line in lines(stderr) if line["stream"] == "shop.people"] == [
        ("shop.people", 110),
        ("shop.people", 120),
    ]
