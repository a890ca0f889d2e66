"""Streams that are read once for each record of their parent: from the API to the raw tables."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncline.errors import ConfigurationError
from tests.http_api import SECRET, Api, Reply, Request
from tests.shop import Shop

CHILD = {
    "path": "/classes/{resources.classes.id}/students",
    "include_from_parent": ["id"],
    "key": ["_classes_id", "id"],
}


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.fixture
def shop(api: Api, database: str, tmp_path: Path) -> Shop:
    return Shop(api, database, tmp_path)


def school(classes: list[Any], **students: Any) -> Any:
    """Answer with the classes, and with the students of each path."""

    def answer(request: Request) -> Reply:
        if request.path == "/classes":
            return Reply([item if isinstance(item, dict) else {"id": item} for item in classes])
        found = students.get(request.path.split("/")[2], Reply(status=404))
        return found if isinstance(found, Reply) else Reply(found)

    return answer


def load(shop: Shop) -> dict[str, Any]:
    ended = shop.command("load", "shop", "--json")
    if ended.exit_code == 0:
        return {}
    error: dict[str, Any] = json.loads(ended.stdout)["errors"][0] if ended.stdout else {"message": ended.stderr}
    return error


@pytest.mark.parametrize("concurrency", [1, 4])
def test_children_of_all_parents(shop: Shop, concurrency: int) -> None:
    """Each parent is asked once, its children know it, and a parent without children has none."""
    shop.configure({"concurrency": concurrency}, classes={}, students=CHILD)
    names = {str(n): [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}] for n in range(1, 30)} | {"30": []}
    shop.api.answer = school(list(range(1, 31)), **names)
    assert load(shop) == {}
    assert shop.query("select count(*) as n from raw_shop.students") == [{"n": 58}]
    assert {"_classes_id": 7, "id": 2, "name": "b"} in shop.live("students")
    asked = [request.path for request in shop.api.requests if request.path != "/classes"]
    assert sorted(asked) == sorted(f"/classes/{n}/students" for n in range(1, 31))


def test_requests_of_several_parents_are_under_way_at_once(shop: Shop) -> None:
    """With a concurrency of three, three parents are asked at the same time, and never four."""
    shop.configure({"concurrency": 3}, classes={}, students=CHILD)
    together, most, lock = threading.Barrier(3), [0, 0], threading.Lock()
    answer = school(list(range(9)), **{str(n): [{"id": 1}] for n in range(9)})

    def at_once(request: Request) -> Reply:
        if request.path != "/classes":
            with lock:
                most[0] += 1
                most[1] = max(most)
            together.wait(30)  # nobody goes on before there are three
            with lock:
                most[0] -= 1
        return answer(request)

    shop.api.answer = at_once
    assert load(shop) == {}
    assert most[1] == 3


def test_values_are_quoted(shop: Shop) -> None:
    """A parent's key may hold what means something in an address; it changes neither path nor query."""
    shop.configure({}, classes={}, students=CHILD)
    asked: list[str] = []

    def answer(request: Request) -> Reply:
        asked.append(request.path)
        return Reply([{"id": "a/../b?c&d ü"}] if request.path == "/classes" else [{"id": 1}])

    shop.api.answer = answer
    assert load(shop) == {}
    assert asked == ["/classes", "/classes/a%2F..%2Fb%3Fc%26d%20%C3%BC/students"]


@pytest.mark.parametrize(
    ("stream", "asked"),
    [
        (
            {"path": "/students", "params": {"class": {"type": "resolve", "resource": "classes", "field": "ref.no"}}},
            "class=7",
        ),
        ({"path": "/students", "params": {"of": "class-{resources.classes.ref.no}"}}, "of=class-7"),
        ({"path": "/c/{no}", "params": {"no": {"type": "resolve", "resource": "classes", "field": "ref.no"}}}, "/c/7"),
        ({"path": "/students", "method": "POST", "json": {"class": "{resources.classes.ref.no}"}}, '{"class":7}'),
    ],
)
def test_where_a_parents_value_goes(shop: Shop, stream: dict[str, Any], asked: str) -> None:
    """Into the query, the path or the body, from a field as deep as it is."""
    shop.configure({}, classes={}, students={"data_selector": "$", **stream})
    shop.api.answer = lambda request: Reply(
        [{"id": 1, "ref": {"no": 7}}] if request.path == "/classes" else [{"id": 1}]
    )
    assert load(shop) == {}
    request = shop.api.requests[-1]
    query = "&".join(f"{name}={value}" for name, value in request.query.items())
    assert asked in f"{request.path} {query} {request.body.decode().replace(' ', '')}"


def test_one_object_for_each_parent(shop: Shop) -> None:
    """A path that ends with a placeholder names one object, tags and all: that is the record."""
    shop.configure({}, classes={}, details={"path": "/classes/{resources.classes.id}"})
    shop.api.answer = lambda request: Reply(
        [{"id": 1}, {"id": 2}] if request.path == "/classes" else {"id": int(request.path[-1]), "tags": ["x"]}
    )
    assert load(shop) == {}
    assert shop.live("details") == [{"id": 1, "tags": ["x"]}, {"id": 2, "tags": ["x"]}]


def test_a_list_where_one_object_is_expected(shop: Shop) -> None:
    """What answers with a list is read to its last page, though the path ends with a placeholder."""
    shop.configure(
        {"paginator": {"type": "page_number"}},
        classes={"paginator": "auto"},
        students={"path": "/of/{resources.classes.id}"},
    )

    def answer(request: Request) -> Reply:
        if request.path == "/classes":
            return Reply([{"id": 1}])
        page = int(request.query.get("page", "1"))
        return Reply([{"id": page}], headers={"Link": f'</of/1?page={page + 1}>; rel="next"'} if page < 3 else {})

    shop.api.answer = answer
    assert load(shop) == {}
    assert shop.live("students") == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_a_parent_that_is_not_found(shop: Shop) -> None:
    """A parent's 404 ends the load and says which it is, without its value; where it says so it means no children."""
    shop.configure({}, classes={}, students=CHILD)
    shop.api.answer = school([1, SECRET], **{"1": [{"id": 1}]})
    message = load(shop)["message"]
    assert "/classes/{resources.classes.id}/students (record 2 of classes, by _key): not found" in message
    assert SECRET not in message
    assert shop.live("students") == []
    shop.configure({}, classes={}, students=CHILD | {"response_actions": [{"status_code": 404, "action": "ignore"}]})
    assert load(shop) == {}
    assert shop.live("students") == [{"_classes_id": 1, "id": 1}]


def test_a_parent_without_the_field(shop: Shop) -> None:
    """A parent's record that lacks the field is an error that names both, and not the record."""
    shop.configure({}, classes={}, students=CHILD | {"path": "/classes/{resources.classes.code}/students"})
    shop.api.answer = school([{"id": 1, "name": SECRET}])
    message = load(shop)["message"]
    assert "a record of classes has no string or number at 'code'" in message
    assert SECRET not in message


def test_pages_of_children(shop: Shop) -> None:
    """Each parent's children are paged on their own."""
    shop.configure({}, classes={}, students=CHILD | {"paginator": {"type": "page_number", "total_path": "pages"}})

    def answer(request: Request) -> Reply:
        if request.path == "/classes":
            return Reply([{"id": n} for n in range(1, 6)])
        number, page = int(request.path.split("/")[2]), int(request.query["page"])
        return Reply({"pages": number, "data": [{"id": page}]})

    shop.api.answer = answer
    assert load(shop) == {}
    found = [(child["_classes_id"], child["id"]) for child in shop.live("students")]
    assert sorted(found) == [(n, page) for n in range(1, 6) for page in range(n)]


def test_children_that_are_cut_off_go_on_at_their_parent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An increment of children asks no parent twice; where the parents are others, it begins anew."""
    monkeypatch.setattr("syncline.load.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("syncline.connectors.http.connector.PAGE_RECORDS", 2)
    child = CHILD | {"incremental": {"cursor_path": "at", "start_param": "since"}}
    shop.configure({"concurrency": 1}, classes={}, students=child)
    students = {str(n): [{"id": n, "at": 10 - n}] for n in range(1, 9)}
    whole = school(list(range(1, 9)), **students)
    shop.api.answer = lambda request: Reply(status=503) if request.path == "/classes/6/students" else whole(request)
    assert "503" in load(shop)["message"]
    shop.api.requests.clear()
    shop.api.answer = whole
    assert load(shop) == {}
    assert [r.path[9:10] for r in shop.api.requests] == ["", "5", "6", "7", "8"]
    assert [child["id"] for child in shop.live("students")] == list(range(1, 9))
    assert shop.query("select cursor from syncline.streams where stream = 'students'") == [{"cursor": {"value": 9}}]


def test_other_parents_than_at_the_cut(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that came in between would be passed over: the fetch begins anew, in the run after."""
    monkeypatch.setattr("syncline.load.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("syncline.connectors.http.connector.PAGE_RECORDS", 2)
    child = CHILD | {"incremental": {"cursor_path": "at", "start_param": "since"}}
    shop.configure({"concurrency": 1}, classes={}, students=child)
    students = {str(n): [{"id": n, "at": n}] for n in range(1, 9)}
    whole = school([2, 3, 4, 5, 6], **students)
    shop.api.answer = lambda request: Reply(status=503) if request.path == "/classes/6/students" else whole(request)
    load(shop)
    shop.api.answer = school([1, 2, 3, 4, 5, 6], **students)
    assert "the records of classes are others" in load(shop)["message"]
    assert load(shop) == {}
    assert [child["id"] for child in shop.live("students")] == [1, 2, 3, 4, 5, 6]


def test_two_parents(shop: Shop) -> None:
    """A stream has one parent."""
    shop.configure({}, classes={}, schools={}, students={"path": "/{resources.schools.id}/{resources.classes.id}"})
    shop.api.answer = lambda request: Reply([{"id": 1}])
    with pytest.raises(ConfigurationError, match=r"several parents: classes, schools"):
        shop.load("students")
