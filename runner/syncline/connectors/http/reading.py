"""Reads the pages of one endpoint in order, asking for some ahead, and notices pages that go round in a circle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import islice

import msgspec
import xxhash

from syncline.connectors.http.answer import Answer, Position
from syncline.connectors.http.endpoint import Endpoint
from syncline.connectors.http.pagination import Pages, Step
from syncline.errors import SourceError

Submit = Callable[[Endpoint, Step], "Future[Answer]"]
"""Begins to fetch a page in another thread."""


def read_pages(
    endpoint: Endpoint, paginator: Pages, at: Position, submit: Submit, width: int, first: Answer | None = None
) -> Iterator[tuple[Answer, Position | None]]:
    """Yield each answer from `at` on with the position after it, None after the last.

    Up to `width` pages are asked for ahead, none where it is 1; they are a guess, and what an answer says stands. So
    the pages are the same whatever the width. `first` is the page at `at` where it is there already. Raises SourceError
    where the API fails, repeats itself, or gives fewer records than it says there are.
    """
    ahead: deque[tuple[Step, Future[Answer]]] = deque()
    guard = _Guard(endpoint)
    following: Position | None = at
    try:
        while following is not None:
            at = following
            step = paginator.step(at)
            if first is not None:
                answer, first = first, None
            elif ahead and ahead[0][0] == step:
                answer = ahead.popleft()[1].result()
            else:
                answer = endpoint.fetch(step)
            following = None if answer.status in endpoint.ignored else paginator.after(at, answer)
            guard.check(answer, following)
            if following is not None and width > 1:
                guesses = islice(paginator.ahead(following, answer), width)
                _fill(ahead, [paginator.step(guess) for guess in guesses], endpoint, submit)
            yield answer, following
    finally:
        _drop(ahead)


def _fill(ahead: deque[tuple[Step, Future[Answer]]], steps: list[Step], endpoint: Endpoint, submit: Submit) -> None:
    """Ask for these steps, the next ones; what was asked for before on another guess is dropped."""
    if [step for step, _ in ahead] != steps[: len(ahead)]:
        _drop(ahead)
    for step in steps[len(ahead) :]:
        ahead.append((step, submit(endpoint, step)))


def _drop(ahead: deque[tuple[Step, Future[Answer]]]) -> None:
    for _, future in ahead:
        future.cancel()
    ahead.clear()


_REMEMBERED = 100_000


class _Guard:
    """Notices a page that comes again, and a cursor or address that was there in the last 100,000 pages or so."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._last = b""
        # Hashes of the last places, oldest first, since an API may have a million pages and memory stays flat.
        self._seen: dict[int, None] = {}

    def check(self, answer: Answer, following: Position | None) -> None:
        records = xxhash.xxh3_128_digest(b"\n".join(answer.records)) if answer.records else b""
        if records and records == self._last:
            raise SourceError(
                f"{answer.place}: two pages in a row have the same records",
                "Check the paginator's parameters; if the API repeats its last page, set total_path.",
            )
        self._last = records
        inner = following.get("at", following) if following else {}
        if "page" in inner or "offset" in inner or not inner:
            return  # they count
        if "path" in inner:
            self._remember(_hash(self._endpoint.seal(answer.url, answer.place)))
        if (place := _hash(inner)) in self._seen:
            raise SourceError(
                f"{answer.place}: the pages go round in a circle: the next one was read already", "Check the paginator."
            )
        self._remember(place)

    def _remember(self, place: int) -> None:
        self._seen[place] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]


def _hash(position: Position) -> int:
    return xxhash.xxh3_64_intdigest(msgspec.json.encode(position, order="deterministic"))
