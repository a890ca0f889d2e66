"""Times of cron expressions, whatever the expression, the zone and the moment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from syncline import db, schedules
from syncline.errors import ConfigurationError

ZONES = [
    "UTC",
    "Europe/Prague",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Africa/Cairo",
]
"""With half hours, with summer times of half an hour and of two hours, with a change at midnight."""

LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
NAMES = [[], [], [], ["JAN", "jul", "Dec"], ["SUN", "mon", "Fri"]]


@st.composite
def fields(draw: st.DrawFn, place: int) -> str:
    """One field of an expression: a star, numbers, ranges, steps, names, lists."""
    low, high = LIMITS[place]
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    single = st.one_of(number.map(str), *([st.sampled_from(NAMES[place])] if NAMES[place] else []))
    step = st.builds(
        lambda start, width: f"{start}/{width}", st.one_of(st.just("*"), span, single), st.integers(1, high)
    )
    items = st.lists(st.one_of(single, span, step), min_size=1, max_size=3).map(",".join)
    return draw(st.one_of(st.just("*"), items))


EXPRESSIONS = st.tuples(*(fields(place) for place in range(5))).map(" ".join)
MOMENTS = st.datetimes(datetime(2015, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
CHANGES = st.sampled_from([datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)])
NEAR_CHANGES = st.builds(lambda at, minutes: at + timedelta(minutes=minutes), CHANGES, st.integers(-300, 300))


def is_by_time_of_day(cron: str) -> bool:
    minute, hour, *_ = cron.split()
    return not minute.startswith("*") and not hour.startswith("*")


def matches(cron: str, local: datetime) -> bool:
    """Whether the expression says this minute of a clock, tried on a clock that is never changed."""
    naive = local.replace(tzinfo=UTC)
    return next(CronSim(cron, naive - timedelta(seconds=1))) == naive


@given(cron=EXPRESSIONS, zone=st.sampled_from(ZONES), at=st.one_of(MOMENTS, NEAR_CHANGES))
@example(cron="30 2 * * *", zone="Europe/Prague", at=datetime(2026, 10, 25, 1, 10, tzinfo=UTC))
@example(cron="30 2 * * *", zone="Europe/Prague", at=datetime(2026, 3, 29, 0, 59, tzinfo=UTC))
@settings(max_examples=400, deadline=None)
def test_next_is_later_and_matches(cron: str, zone: str, at: datetime) -> None:
    """The next time is strictly later, and the expression says it on the zone's clock, or said it in the gap before."""
    try:
        found = schedules.next_time(cron, zone, at)
    except ConfigurationError:
        with pytest.raises(CronSimError):
            CronSim(cron, at)
        return
    if found is None:
        return
    assert found > at
    assert found.tzinfo is UTC
    local = found.astimezone(ZoneInfo(zone))
    before = (found - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    if matches(cron, local):
        return
    # The clock was put forward to here: what it left out comes now.
    assert is_by_time_of_day(cron)
    assert local.utcoffset() != before.utcoffset()
    left_out = (local - before.replace(second=0)) // timedelta(minutes=1)
    gap = [local.replace(tzinfo=UTC) - timedelta(minutes=minutes) for minutes in range(1, 180)]
    assert left_out >= 0
    assert any(matches(cron, minute) for minute in gap)


@given(cron=EXPRESSIONS, zone=st.sampled_from(ZONES), at=st.one_of(MOMENTS, NEAR_CHANGES))
@settings(max_examples=400, deadline=None)
def test_previous_is_the_way_back(cron: str, zone: str, at: datetime) -> None:
    """Between the previous time and the next there is none: each leads to the other."""
    try:
        following = schedules.next_time(cron, zone, at)
    except ConfigurationError:
        return
    if following is None:
        return
    assert schedules.previous_time(cron, zone, following) == following
    before = schedules.previous_time(cron, zone, at)
    assert before is not None
    assert before <= at
    assert schedules.next_time(cron, zone, before) == following
    assert schedules.count_times(cron, zone, before, following) == 1


@given(
    zone=st.sampled_from(ZONES),
    cron=st.sampled_from(["*/30 * * * *", "0 * * * *", "*/7 3-9 * * *", "* * * * 0"]),
    at=NEAR_CHANGES,
)
@settings(max_examples=100, deadline=None)
def test_minutes_go_on_through_a_change(zone: str, cron: str, at: datetime) -> None:
    """What goes by `*` comes at each minute that matches on the zone's clock, twice in an hour that comes twice."""
    begin = at.replace(second=0, microsecond=0)
    minutes = [begin + timedelta(minutes=number) for number in range(1, 600)]
    wanted = [minute for minute in minutes if matches(cron, minute.astimezone(ZoneInfo(zone)))]
    found = [begin]
    while (following := schedules.next_time(cron, zone, found[-1])) is not None and following <= minutes[-1]:
        found.append(following)
    assert found[1:] == wanted


@given(at=NEAR_CHANGES, hour=st.integers(0, 5), minute=st.integers(0, 59))
@settings(max_examples=100, deadline=None)
def test_a_time_of_day_comes_once_a_day(at: datetime, hour: int, minute: int) -> None:
    """In Prague a time of day comes once on each day, on those on which the clock is changed too."""
    cron, zone = f"{minute} {hour} * * *", ZoneInfo("Europe/Prague")
    times = [at]
    for _ in range(5):
        following = schedules.next_time(cron, zone.key, times[-1])
        assert following is not None
        times.append(following)
    days = [time.astimezone(zone).date() for time in times[1:]]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


@pytest.fixture(scope="module")
def shared(server_dsn: str, template: str) -> Iterator[db.Connection]:
    """A database for all examples: they only ask."""
    name = sql.Identifier(f"syncline_times_{os.getpid()}")
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(template)))
        with db.connect(make_conninfo(server_dsn, dbname=f"syncline_times_{os.getpid()}")) as opened:
            yield opened
        admin.execute(sql.SQL("drop database {}").format(name))


def does_sql_take(connection: db.Connection, cron: str) -> bool:
    try:
        return bool(db.call(connection, "check_cron", cron))
    except ConfigurationError:
        return False


def does_python_take(field: str, place: int) -> bool:
    """Whether the field is one, by itself: February has no 30th only where both are named."""
    try:
        return bool(CronSim(" ".join(field if number == place else "*" for number in range(5)), datetime.now(UTC)))
    except CronSimError:
        return False


@given(
    cron=st.one_of(
        EXPRESSIONS,
        st.tuples(*[st.text("0123456789*/-,LW#", min_size=1, max_size=4)] * 5).map(" ".join),
        st.tuples(
            *[st.sampled_from(["*", "0", "L", "lw", "5L", "1#3", "MON#2", "*/5", "5/10", "1-3", "60", "FRI-SUN"])] * 5
        ).map(" ".join),
    )
)
@settings(max_examples=500, deadline=None)
def test_sql_and_python_agree_on_expressions(shared: db.Connection, cron: str) -> None:
    """SQL and Python take the same fields, but for a step after L, which means nothing."""
    assume(not re.search("L[^ ,]*/", cron.upper()))
    assert does_sql_take(shared, cron) == all(
        does_python_take(field, place) for place, field in enumerate(cron.split())
    )
