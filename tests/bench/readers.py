"""Fifty publishes, rows changed in each, under eight readers: failed reads, slowest read, p99 with and without."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg

from tests.bench.volume import make_database
from tests.driver import Driver, people, person

READERS, PUBLISHES, QUIET_SECONDS = 8, 50, 5.0


def measure(dsn: str, folder: Path) -> None:
    """Print what readers feel of publishing."""
    print(f"\n{PUBLISHES} publishes under {READERS} readers (prepared statements, every second one in transactions)")
    root = folder / "readers"
    root.mkdir()
    database = make_database(dsn, "readers")
    with Driver(database, root) as driver:
        driver.sync(people(2000))
        driver.sync([person(1, name="x"), *people(2000)[1:]])
        quiet = _read_while(database, lambda: time.sleep(QUIET_SECONDS))

        def publish() -> None:
            for number in range(PUBLISHES):
                changed = [person(key, name=f"publish {number}") for key in range(1, 21)]
                driver.sync([*changed, *people(2000)[20:]])

        busy = _read_while(database, publish)
    for name, (times, failed) in (("quiet", quiet), ("publishing", busy)):
        times.sort()
        p99 = times[int(len(times) * 0.99)] * 1000
        print(f"  {name}: {len(times):,} reads, {failed} failed, p99 {p99:.1f} ms, slowest {times[-1] * 1000:.1f} ms")


def _read_while(dsn: str, action: object) -> tuple[list[float], int]:
    times: list[float] = []
    failed = 0
    stopped = threading.Event()

    def read(number: int) -> None:
        nonlocal failed
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
            while not stopped.is_set():
                started = time.perf_counter()
                try:
                    if number % 2:
                        with connection.transaction():
                            for _ in range(3):
                                connection.execute(
                                    "select id, name from people_current where id = %s", (number,)
                                ).fetchone()
                    else:
                        connection.execute("select id, name from people_current where id = %s", (number,)).fetchone()
                except psycopg.Error:
                    failed += 1
                times.append(time.perf_counter() - started)
                time.sleep(0.002)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    action()  # type: ignore[operator]
    stopped.set()
    for thread in threads:
        thread.join()
    return times, failed
