"""Replays against a plain dict: what gets in, what does not, and that nothing newer is ever overwritten."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from syncline import control
from syncline.config import Stream
from syncline.replay import ReplayStep
from tests.properties.conftest import Clones, examples
from tests.properties.subject import Subject

_numbers = itertools.count(1)

Keys = st.integers(1, 3)


def _line(key: int, content: int) -> bytes:
    return json.dumps({"id": key, "content": content}).encode()


Good = st.builds(_line, Keys, st.integers(1, 3))
Gone = st.builds(lambda key: json.dumps({"id": key, "gone": True}).encode(), Keys)
Bad = st.builds(lambda key: b'{"id": %d, "content": "\\u0000"}' % key, Keys)
Increment = st.lists(st.one_of(Good, Good, Bad, Gone), min_size=1, max_size=4)


@dataclass(frozen=True)
class Full:
    """A full load of these lines."""

    lines: tuple[bytes, ...]


REPLAY = "replay"
Steps = st.lists(
    st.one_of(
        Increment, Increment, st.builds(Full, st.lists(st.one_of(Good, Bad), max_size=4).map(tuple)), st.just(REPLAY)
    ),
    max_size=5,
)


@dataclass
class Model:
    """What is live by key, which keys came since the stream has its key, and the errors that are open, oldest first."""

    live: dict[str, bytes] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    waiting: list[bytes] = field(default_factory=list)

    def load(self, lines: tuple[bytes, ...], *, is_full: bool) -> None:
        good = {str(json.loads(line)["id"]): line for line in lines if b"u0000" not in line}
        bad = {str(json.loads(line)["id"]) for line in lines if b"u0000" in line}
        if is_full:
            self.met |= self.live.keys() - good.keys() - bad
            self.live = {key: line for key, line in self.live.items() if key in bad}
            # What is bad is met again by the full load itself, or is no more.
            self.waiting = []
        for key, line in good.items():
            self._take(key, line)

    def _take(self, key: str, line: bytes) -> None:
        if b'"gone"' not in line:
            self.live[key] = line
            self.met.add(key)
        elif self.live.pop(key, None) is not None:
            self.met.add(key)

    def replay(self) -> int:
        """Take what waits, but for the keys that came since; return how many got in."""
        last = {str(json.loads(line)["id"]): line for line in self.waiting if b"u0000" not in line}
        taken = {key: line for key, line in last.items() if key not in self.met}
        for key, line in taken.items():
            self._take(key, line)
        self.waiting = [line for line in self.waiting if b"u0000" in line]
        return len(taken)


@pytest.fixture(scope="module")
def subject(clones: Clones) -> Iterator[Subject]:
    """One database for all examples: each has a stream of its own."""
    with clones() as made:
        yield made


def _replay(subject: Subject, stream: Stream) -> None:
    source = subject.project.sources["files"]
    project = replace(subject.project, sources={"files": replace(source, streams={stream.name: stream})})
    with subject.run(replay={"stream": stream.label}) as run_id:
        ReplayStep(
            project=project,
            dsn=subject.dsn,
            claimed=(run_id, 1),
            connection=subject.connection,
            entities=[],
            done=lambda label, load: None,
            note=lambda text: None,
            stopped=threading.Event(),
        ).run()
        control.finish_replay(subject.connection)


def _state(subject: Subject, stream: Stream) -> list[object]:
    revisions = subject.rows(f"select * from raw_files.{stream.name}_json order by _key, _first_load")
    errors = "select error_id, message, closed_at, note from syncline.row_errors where stream = '{}' order by error_id"
    return [revisions, subject.rows(errors.format(stream.name))]


@settings(max_examples=examples(50))
@given(rejected=st.lists(st.lists(st.one_of(Good, Bad), min_size=1, max_size=4), min_size=1, max_size=2), steps=Steps)
def test_a_replay_never_goes_over_what_is_newer(
    subject: Subject, rejected: list[list[bytes]], steps: list[list[bytes] | Full | str]
) -> None:
    """Records rejected for their key get in later, the last of each key, and only where the key did not come since.

    A second replay changes nothing at all, and no kept record outlives its error.
    """
    name = f"replayed_{next(_numbers)}"
    mended = subject.add_stream(name, deleted={"path": "gone"})
    wrong = replace(mended, key=("code",), common=mended.common)
    model = Model()
    for lines in rejected:
        subject.load_lines(lines, wrong, is_increment=True)
        model.waiting += lines
    for step in [*steps, REPLAY]:
        if isinstance(step, Full):
            subject.load_lines(step.lines, mended)
            model.load(step.lines, is_full=True)
        elif isinstance(step, list):
            subject.load_lines(step, mended, is_increment=True)
            model.load(tuple(step), is_full=False)
        else:
            _replay(subject, mended)
            event(f"{min(model.replay(), 2)} got in")
            before = _state(subject, mended)
            _replay(subject, mended)
            assert _state(subject, mended) == before
        live = subject.rows(f"select _key, payload::text as line from raw_files.{name}_json where _gone_load is null")
        assert {row["_key"]: row["line"].encode() for row in live} == model.live
        open_keys = subject.rows(
            f"select _key from syncline.row_errors where stream = '{name}' and closed_at is null and _key is not null"
            " and severity = 'error' group by _key having count(distinct load_id) > 1"
        )
        assert open_keys == [], "one record has errors of several loads"
        orphans = subject.rows(
            "select * from syncline.rejected_records join syncline.row_errors using (error_id)"
            " where closed_at is not null"
        )
        assert orphans == []
