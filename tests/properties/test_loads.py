"""Loads against a plain dict: what is live, what is counted, and what can be read as it was."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from syncline import db
from syncline.config import Stream
from syncline.errors import RefusedError, RunError, SourceUnavailableError
from tests.properties.conftest import Clones, examples
from tests.properties.subject import Line, Subject, Unreadable

SIDES = pytest.mark.parametrize("small_side", [1_500_000, 0], ids=["small", "large"])

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Load:
    """One load: its lines, what kind it is, and whether it may close everything."""

    lines: tuple[Line, ...]
    limit: int | None = None
    is_increment: bool = False
    allow_mass_delete: bool = True


@dataclass(frozen=True)
class Prune:
    keep: int


Keys = st.integers(1, 4)


def _good(number: int, content: int, is_text: bool) -> bytes:
    return json.dumps({"id": str(number) if is_text else number, "content": content}).encode()


Good = st.builds(_good, Keys, st.integers(1, 3), st.sampled_from([False, False, False, True]))
Tombstones = st.builds(lambda number: json.dumps({"id": number, "gone": True}).encode(), Keys)
BadWithKey = st.one_of(
    st.builds(lambda number: b'{"id": %d, "content": "\\u0000"}' % number, Keys),
    st.builds(lambda number: b'{"id": %d, "content": "\xff"}' % number, Keys),
    st.builds(lambda number: Unreadable(b'{"id": %d}' % number), Keys),
)
BadWithoutKey = st.sampled_from([b"{}", b"no json", b'{"id": null}', b'{"id": {}}', b'{"id": ""}', Unreadable(b"1;2")])
# Bad lines are rare, and those without a key rarer: each of these stops a load from closing anything.
Lines = st.integers(0, 11).flatmap(lambda n: BadWithoutKey if n == 11 else BadWithKey if n > 8 else Good)
FullLoads = st.builds(Load, st.lists(Lines, max_size=9).map(tuple), allow_mass_delete=st.booleans())
Increments = st.builds(Load, st.lists(st.one_of(Lines, Tombstones), max_size=6).map(tuple), is_increment=st.just(True))
Trials = st.builds(Load, st.lists(Lines, max_size=6).map(tuple), limit=st.integers(1, 4))


def _key(line: Line) -> str | None:
    """The key of a line, None where it cannot be read."""
    try:
        content = json.loads((line.content if isinstance(line, Unreadable) else line).decode("utf-8", "replace"))
    except ValueError:
        return None
    key = content.get("id") if isinstance(content, dict) else None
    return str(key) if isinstance(key, str | int) and key != "" else None


def _is_bad(line: Line) -> bool:
    return isinstance(line, Unreadable) or _key(line) is None or b"\\u0000" in line or b"\xff" in line


@dataclass
class Model:
    """A stream as a dict of the live lines by key, with a copy of it after each load."""

    live: dict[str, bytes] = field(default_factory=dict)
    kept: dict[int, dict[str, bytes]] = field(default_factory=dict)

    def merge(self, load: Load) -> dict[str, int]:
        """Merge a load; return the counts that its row should have."""
        lines = load.lines[: load.limit]
        is_full = not load.is_increment and load.limit is None
        good: dict[str, bytes] = {}
        for line in lines:
            if not _is_bad(line):
                good[str(_key(line))] = line
        came = {key: line for key, line in good.items() if b'"gone"' not in line}
        bad = {_key(line) for line in lines if _is_bad(line)}
        gone = self.live.keys() & (good.keys() - came.keys())
        if is_full and None not in bad:
            gone |= self.live.keys() - good.keys() - bad
        before = self.live
        self.live = {key: line for key, line in before.items() if key not in gone} | came
        return {
            "records_read": len(lines),
            "records_new": len(came.keys() - before.keys()),
            "records_changed": sum(key in before and before[key] != line for key, line in came.items()),
            "records_gone": len(gone),
            "records_rejected": len(lines) - len(good),
            "live_records": len(self.live),
        }


def _revisions(subject: Subject, stream: Stream) -> list[dict[str, Any]]:
    return subject.rows(
        "select _key, _hash, _first_load, _gone_load, _ordinal, payload::text as line"
        f" from raw_files.{stream.name}_json order by _key, _first_load"
    )


def _records(subject: Subject, stream: Stream, load_id: int) -> dict[str, Any]:
    rows = db.call(subject.connection, "records", "files", stream.name, load_id)
    assert len({row["_key"] for row in rows}) == len(rows)
    return {row["_key"]: row["payload"] for row in rows}


@pytest.fixture(scope="module")
def subject(clones: Clones) -> Iterator[Subject]:
    """One database for all examples: each has a stream of its own."""
    with clones() as made:
        yield made


@SIDES
@settings(max_examples=examples(80))
@given(
    steps=st.lists(st.one_of(FullLoads, FullLoads, Increments, Trials, st.builds(Prune, st.integers(1, 3))), max_size=8)
)
def test_loads_are_a_dict(subject: Subject, small_side: int, steps: Sequence[Load | Prune]) -> None:
    """Whatever loads come, live records and counts are a dict's, and each kept load reads exactly as it was."""
    stream = subject.add_stream(f"dict_{next(_numbers)}", deleted={"path": "gone"})
    model = Model()
    pruned_before = 0
    with patch("syncline.load.SMALL_SIDE", small_side):
        for step in steps:
            if isinstance(step, Prune):
                subject.prune(stream, step.keep)
                pruned_before = max([pruned_before, *sorted(model.kept)[: -step.keep]])
                continue
            _load(subject, stream, model, step)
        _check_kept(subject, stream, model, pruned_before)


def _load(subject: Subject, stream: Stream, model: Model, load: Load) -> None:
    before = _revisions(subject, stream)
    options = {"limit": load.limit, "is_increment": load.is_increment, "allow_mass_delete": load.allow_mass_delete}
    is_full = not load.is_increment and load.limit is None
    if is_full and not load.lines and model.live and not load.allow_mass_delete:
        with pytest.raises(RefusedError, match="came back empty"):
            subject.load_lines(load.lines, stream, **options)
        assert _revisions(subject, stream) == before
        return
    row = subject.load_lines(load.lines, stream, **options)
    counts = model.merge(load)
    assert {name: row[name] for name in counts} == counts
    model.kept[row["load_id"]] = dict(model.live)
    after = _revisions(subject, stream)
    assert {each["_key"]: each["line"].encode() for each in after if each["_gone_load"] is None} == model.live
    opened = [each for each in after if each["_first_load"] == row["load_id"]]
    closed = [each for each in after if each["_gone_load"] == row["load_id"]]
    assert len(opened) == counts["records_new"] + counts["records_changed"]
    assert len(closed) == counts["records_gone"] + counts["records_changed"]
    if not opened and not closed:
        event("unchanged load")
        assert after == before
    staged = subject.rows(f"select count(*) as left_over from raw_files.{stream.name}_staged")
    assert staged == [{"left_over": 0}]


def _check_kept(subject: Subject, stream: Stream, model: Model, pruned_before: int) -> None:
    for load_id, live in model.kept.items():
        expected = {key: json.loads(line) for key, line in live.items()}
        if load_id > pruned_before:
            assert _records(subject, stream, load_id) == expected
            continue
        # Where pruning found nothing to delete, an older load still reads; it never reads wrongly.
        try:
            assert _records(subject, stream, load_id) == expected
        except RunError:
            event("pruned")


@SIDES
@settings(max_examples=examples(60))
@given(
    before=st.lists(Lines, max_size=6),
    lines=st.lists(Lines, min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    is_increment=st.booleans(),
    seconds=st.sampled_from([0.0, 60.0]),
)
def test_a_fetch_in_parts_is_a_fetch(
    subject: Subject,
    small_side: int,
    before: list[Line],
    lines: list[Line],
    cuts: list[int],
    is_increment: bool,
    seconds: float,
) -> None:
    """However often a fetch is cut off, what is loaded in the end is what one fetch would have loaded."""
    whole = subject.add_stream(f"whole_{next(_numbers)}")
    cut = subject.add_stream(f"cut_{next(_numbers)}")
    with patch("syncline.load.SMALL_SIDE", small_side), patch("syncline.load.CHECKPOINT_SECONDS", seconds):
        for stream in (whole, cut):
            subject.load_lines(before, stream)
        subject.load_lines(lines, whole, is_increment=is_increment)
        for place in sorted(cuts):
            # A cut after the last page is none.
            with suppress(SourceUnavailableError):
                subject.load_lines(lines, cut, is_increment=is_increment, cut_after=place)
        subject.load_lines(lines, cut, is_increment=is_increment)
    live = "select _key, payload::text as line from raw_files.{}_json where _gone_load is null order by _key"
    assert subject.rows(live.format(cut.name)) == subject.rows(live.format(whole.name))


@SIDES
@settings(max_examples=examples(30))
@given(lines=st.lists(Lines, min_size=1, max_size=9), again=st.randoms(use_true_random=False))
def test_the_same_records_again_change_nothing(
    subject: Subject, small_side: int, lines: list[Line], again: Any
) -> None:
    """A full load of the same records, in another order, writes no revision: not one byte of the table changes."""
    stream = subject.add_stream(f"same_{next(_numbers)}")
    unique = list({_key(line): line for line in lines if not _is_bad(line)}.values())
    with patch("syncline.load.SMALL_SIDE", small_side):
        subject.load_lines(unique, stream)
        before = _revisions(subject, stream)
        row = subject.load_lines(again.sample(unique, len(unique)), stream)
        assert _revisions(subject, stream) == before
        assert (row["records_new"], row["records_changed"], row["records_gone"]) == (0, 0, 0)


# What json takes and jsonb does not, what neither takes, and what breaks a record's shape.
ESCAPES = [b"\\u0000", b"\\ud800", b"\\udc00\\ud800", b"\\ud83d\\ude00", b"\\"]
NUMBERS = [b"1e99999", b"1e-99999", b"-", b"01", b"NaN", b"9" * 40, b"null"]
SIGNS = [b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"\t", b"\x00", b"\xff", b"\xc3", b"\xef\xbb\xbf"]
Noise = st.sampled_from([*ESCAPES, *NUMBERS, *SIGNS])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A record with a few bytes put in, taken out or doubled, in one line."""
    line = json.dumps({"id": draw(Keys), "text": draw(st.text(max_size=5)), "n": [1.5, None, {"a": draw(st.floats())}]})
    record = line.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(record)))
        record = record[:at] + draw(st.one_of(Noise, st.binary(max_size=2))) + record[at + draw(st.integers(0, 2)) :]
    return record.replace(b"\n", b" ")


@SIDES
@settings(max_examples=examples(80))
@given(lines=st.lists(damaged(), min_size=1, max_size=6), is_first=st.booleans())
def test_no_bytes_fail_a_load(subject: Subject, small_side: int, lines: list[bytes], is_first: bool) -> None:
    """Whatever bytes a record is of, its load goes through, and what became live parses as jsonb."""
    stream = subject.add_stream(f"bytes_{next(_numbers)}")
    with patch("syncline.load.SMALL_SIDE", small_side):
        if not is_first:
            subject.load_lines([_good(7, 1, is_text=False)], stream)
        row = subject.load_lines(lines, stream)
    live = subject.rows(f"select _key, pg_column_size(payload) as size from raw_files.{stream.name}")
    rejected = subject.rows(
        f"select * from syncline.row_errors where load_id = {row['load_id']} and severity = 'error'"
    )
    kinds = Counter(error["_key"] is None for error in rejected)
    event(f"rejected {min(len(rejected), 3)}")
    assert len(rejected) + len(live) >= 1
    assert row["is_closing"] == (kinds[True] == 0)
