"""Conflicts, overrides, changes, lineage and references over HTTP, for an entity that two sources feed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.integration.test_api_runs import problem
from tests.projects import Bench
from tests.roles import three_roles
from tests.serving import Client, in_process, token

API = "/api/v1"
PARTNERS = f"{API}/entities/partners"

SOURCES = """
sources:
  - name: files
    schema: raw_files
    config: {meta: {syncline: {connector: file, path: data}}}
    tables:
      - name: sheet
        config: {meta: {syncline: {path: sheet.jsonl, key: code}}}
      - name: crm
        config: {meta: {syncline: {path: crm.jsonl, key: code}}}
"""

STAGING = """
{{ config(materialized='ephemeral') }}
select
    _key,
    {{ typed('code', 'text', required=true) }} as code,
    {{ typed('number', 'integer') }} as number,
    {{ typed('name', 'text') }} as name,
    {{ typed('price', 'numeric') }} as price
from {{ source('files', 'STREAM') }}
"""

MODEL = """
{{ config(
    materialized='versioned', unique_key='number', external_ref={'type': 'partner', 'source': 'files', 'key': 'code'}
) }}
{{ merged(
    sources={'sheet': ref('p_sheet'), 'crm': ref('p_crm')},
    fields={'code': {}, 'number': {}, 'name': {}, 'price': {'priority': ['sheet']}},
) }}
"""

DIGITS = "12345678901234567890.12345678901234567890"
ODD_KEYS = ["a/b", "/", "x/overrides/name", "y/history", "two words", "ü→💡", "100%", "?&#;+=", "line\nbreak\n", "%2F"]

READ = (
    "/conflicts", "/overrides", "/changes", "/references", "/references/status",
    "/entities/partners/mapping", "/entities/partners/rows/a/history", "/entities/partners/rows/a/lineage",
)  # fmt: skip


def partner(code: str, number: int, name: str) -> dict[str, Any]:
    return {"code": code, "number": number, "name": name}


def row(key: str) -> str:
    return f"{PARTNERS}/rows/{quote(key, safe='')}"


@contextmanager
def partners(bench: Bench) -> Iterator[Client]:
    """Yield a client of a project whose partners a and b have different names in the sheet and in the CRM."""
    for file in bench.models.iterdir():
        file.unlink()
    bench.write(bench.models / "sources.yml", SOURCES)
    for stream in ("sheet", "crm"):
        bench.write_model(f"p_{stream}", STAGING.replace("STREAM", stream))
    bench.write_model("partners", MODEL)
    sheet = [json.dumps(partner("a", 1, "Alpha"))[:-1] + f', "price": {DIGITS}}}', partner("b", 2, "Beta")]
    bench.write_lines("sheet.jsonl", [*sheet, *(partner(key, 10 + at, "odd") for at, key in enumerate(ODD_KEYS))])
    bench.write_lines("crm.jsonl", [partner("a", 1, "Alfa"), partner("b", 2, "Betta"), partner("c", 3, "Gamma")])
    bench.sync("files")
    with in_process(bench) as client:
        yield client


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with partners(bench) as made:
        yield made


def ids(client: Client) -> dict[str, int]:
    """The conflicts' numbers by key."""
    found = client.get(f"{API}/conflicts", params={"state": "all"}).json()["conflicts"]
    return {conflict["_key"]: conflict["conflict_id"] for conflict in found}


def test_conflicts_are_listed_and_read(client: Client) -> None:
    """A conflict tells what each source says, which wins and why; lists are filtered and paged."""
    found = client.get(f"{API}/conflicts").json()
    assert {conflict["_key"] for conflict in found["conflicts"]} == {"a", "b"}
    assert found["next_before"] is None
    (first,) = client.get(f"{API}/conflicts", params={"entity": "partners", "key": "a"}).json()["conflicts"]
    assert (first["column_name"], first["state"], first["rule"]) == ("name", "open", "priority")
    assert (first["candidates"], first["winner"]) == ({"sheet": "Alpha", "crm": "Alfa"}, "sheet")
    assert client.get(f"{API}/conflicts/{first['conflict_id']}").json() == first | {"override": None}

    pages: list[int] = []
    before: dict[str, Any] = {}
    while before.get("before", 0) is not None:
        page = client.get(f"{API}/conflicts", params={"limit": 1} | before).json()
        pages += [conflict["conflict_id"] for conflict in page["conflicts"]]
        before = {"before": page["next_before"]}
    assert pages == sorted(ids(client).values(), reverse=True)
    assert client.get(f"{API}/conflicts?state=resolved&state=ignored").json()["conflicts"] == []
    for wrong in ({"entity": "nobody"}, {"state": "odd"}, {"limit": 0}, {"key": "\x00"}, {"column": "name"}):
        problem(client.get(f"{API}/conflicts", params=wrong), 422)
    problem(client.get(f"{API}/conflicts/999"), 404)


def test_a_conflict_is_resolved_and_lifted(client: Client, bench: Bench) -> None:
    """An admin's decision is an override in the token's name that the next run builds, until it is lifted."""
    admin = token(bench, "admin")
    number = ids(client)["a"]
    decided = client.post(f"{API}/conflicts/{number}/resolve", json={"use": "crm", "reason": "asked"}, headers=admin)
    assert decided.status_code == 200, decided.text
    found = decided.json()
    assert (found["state"], found["decided_by"], found["reason"]) == ("resolved", "the-admin", "asked")
    override = found["override"]
    assert (override["source"], override["displaced"], override["set_by"]) == ("crm", "Alpha", "the-admin")
    assert override["status"] == "the next run builds it"
    bench.sync("files")
    assert bench.current("partners")["a"]["name"] == "Alfa"
    (listed,) = client.get(f"{API}/overrides").json()["overrides"]
    assert (listed["override_id"], listed["status"]) == (override["override_id"], "in force")

    lifted = client.post(f"{API}/conflicts/{number}/lift", headers=admin)
    assert (lifted.status_code, lifted.json()["state"], lifted.json()["override"]) == (200, "open", None)
    bench.sync("files")
    assert bench.current("partners")["a"]["name"] == "Alpha"
    assert client.get(f"{API}/overrides").json() == {"overrides": [], "has_more": False}
    (listed,) = client.get(f"{API}/overrides", params={"lifted": True, "key": "a"}).json()["overrides"]
    assert (listed["lifted_by"], listed["status"]) == ("the-admin", "lifted")
    assert "no override is in force" in problem(client.post(f"{API}/conflicts/{number}/lift"), 409)["detail"]


def test_a_conflict_is_ignored(client: Client, bench: Bench) -> None:
    """An operator leaves a conflict to its rule; what is not open cannot be ignored, and closed ones not resolved."""
    operator = token(bench, "operator")
    numbers = ids(client)
    ignored = client.post(f"{API}/conflicts/{numbers['b']}/ignore", json={"reason": "spelling"}, headers=operator)
    assert ignored.status_code == 200, ignored.text
    assert (ignored.json()["state"], ignored.json()["decided_by"]) == ("ignored", "the-operator")
    assert client.post(f"{API}/conflicts/{numbers['b']}/ignore").json()["reason"] is None
    bench.write_lines("crm.jsonl", [partner("a", 1, "Alpha"), partner("b", 2, "Betta")])
    bench.sync("files")
    closed = f"{API}/conflicts/{numbers['a']}"
    assert client.get(closed).json()["state"] == "closed"
    problem(client.post(f"{closed}/ignore"), 409)
    problem(client.post(f"{closed}/resolve", json={"use": "crm"}), 409)
    states = {
        c["_key"]: c["state"] for c in client.get(f"{API}/conflicts?state=ignored&state=closed").json()["conflicts"]
    }
    assert states == {"a": "closed", "b": "ignored"}


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_are_any_text(shared_partners: tuple[Client, Bench], key: str) -> None:
    """Rows are found by any key: slashes, blanks, line breaks, and what looks like an escape or an endpoint."""
    client, _ = shared_partners
    at = f"{row(key)}/overrides/name"
    made = client.put(at, json={"value": f"of {key}"})
    assert made.status_code == 200, made.text
    assert (made.json()["_key"], made.json()["value"]) == (key, f"of {key}")
    assert len(client.get(f"{API}/overrides", params={"key": key}).json()["overrides"]) == 1
    fields = client.get(f"{row(key)}/lineage").json()["fields"]
    assert {field["_key"] for field in fields} == {key}
    events = client.get(f"{row(key)}/history").json()["events"]
    assert [event["event"] for event in events] == ["override set", "first published"]
    assert client.delete(at).status_code == 204
    problem(client.delete(at), 404)
    assert set(problem_allow(client.post(at))) == {"PUT", "DELETE"}


def problem_allow(answer: Any) -> list[str]:
    problem(answer, 405)
    return str(answer.headers["allow"]).split(", ")


@pytest.fixture(scope="module")
def shared_partners(shared_bench: Bench) -> Iterator[tuple[Client, Bench]]:
    shared_bench.reset()
    with partners(shared_bench) as made:
        yield made, shared_bench


def test_numbers_keep_their_digits(client: Client, bench: Bench) -> None:
    """What no double holds goes in and comes out to the last digit: overrides, conflicts, changes, lineage, history."""

    def exact(answer: Any) -> str:
        assert answer.status_code == 200, answer.text
        return msgspec.json.format(answer.content, indent=-1).decode()

    assert f'"value":{DIGITS}' in exact(client.get(f"{row('a')}/lineage", params={"column": "price"}))
    wanted = "98765432109876543210.98765432109876543210"
    body = f'{{"value": {wanted}}}'
    made = client.put(f"{row('a')}/overrides/price", content=body, headers={"Content-Type": "application/json"})
    assert f'"value":{wanted}' in exact(made)
    assert f'"displaced":{DIGITS}' in exact(made)
    bench.sync("files")
    assert str(bench.current("partners")["a"]["price"]) == wanted
    for path in (f"{API}/changes", f"{API}/overrides", f"{row('a')}/history"):
        assert wanted in exact(client.get(path))
        assert DIGITS in exact(client.get(path))


def test_an_override_by_unique_key(client: Client, bench: Bench) -> None:
    """A row is named by its unique key, too; null empties a field; a second override takes the place of the first."""
    first = client.put(f"{row('2')}/overrides/name", json={"value": None, "reason": "secret"}).json()
    assert (first["_key"], first["value"], first["source"], first["set_by"]) == ("b", None, None, "SYNCLINE_SECRET_KEY")
    bench.sync("files")
    assert bench.current("partners")["b"]["name"] is None
    second = client.put(f"{row('b')}/overrides/name", json={"use": "crm"}).json()
    assert (second["source"], second["displaced"]) == ("crm", "Beta")
    everything = client.get(f"{API}/overrides", params={"entity": "partners", "lifted": True}).json()["overrides"]
    assert [override["override_id"] for override in everything] == [second["override_id"], first["override_id"]]
    assert client.get(f"{API}/overrides", params={"lifted": True, "limit": 1}).json()["has_more"] is True


def test_what_cannot_be_overridden(client: Client) -> None:
    """Unknown things are 404, rows that are not there 409, values, sources and columns that do not fit 422."""
    at = f"{row('a')}/overrides"
    value = {"value": "x"}
    problem(client.put(f"{API}/entities/nobody/rows/a/overrides/name", json=value), 404)
    problem(client.put(f"{row('nowhere')}/overrides/name", json=value), 409)
    problem(client.delete(f"{row('a')}/overrides/name"), 404)
    problem(client.delete(f"{API}/entities/nobody/rows/a/overrides/name"), 404)
    for column, wrong in (
        ("name", {}),
        ("name", {"value": "x", "use": "crm"}),
        ("name", {"use": "erp"}),
        ("name", {"use": ""}),
        ("name", value | {"reason": "\x00"}),
        ("name", value | {"why": "x"}),
        ("name", {"value": "a\x00b"}),
        ("number", value),
        ("_key", value),
        ("nothing", value),
    ):
        problem(client.put(f"{at}/{column}", json=wrong), 422)
    for content in (b'{"value": NaN}', b'{"value": ', b'{"value": "\\ud800"}', '{"value": "x"}'.encode("utf-16")):
        problem(client.put(f"{at}/name", content=content, headers={"Content-Type": "application/json"}), 400)
    problem(client.put(f"{at}/name", content=b'{"value": 1}', headers={"Content-Type": "text/plain"}), 415)
    problem(client.put(f"{PARTNERS}/rows/%00/overrides/name", json=value), 422)
    problem(client.put(f"{at}/name?force=1", json=value), 422)
    problem(client.post(f"{API}/conflicts/999/resolve", json={"use": "crm"}), 404)
    problem(client.post(f"{API}/conflicts/{ids(client)['a']}/resolve", json={"use": "erp"}), 422)
    assert client.get(f"{API}/overrides").json()["overrides"] == []


def test_roles(client: Client, bench: Bench) -> None:
    """A viewer reads, an operator ignores, an admin resolves, lifts and overrides, and sets authority aside."""
    viewer, operator = token(bench, "viewer"), token(bench, "operator")
    number = ids(client)["a"]
    for path in (*READ, f"/conflicts/{number}"):
        assert client.get(API + path, headers=viewer).status_code == 200, path
        problem(client.get(API + path, headers={"Authorization": ""}), 401)
    problem(client.post(f"{API}/conflicts/{number}/ignore", headers=viewer), 403)
    for method, path, body in (
        ("POST", f"{API}/conflicts/{number}/resolve", {"use": "crm"}),
        ("POST", f"{API}/conflicts/{number}/lift", None),
        ("PUT", f"{row('a')}/overrides/name", {"value": "x"}),
        ("DELETE", f"{row('a')}/overrides/name", None),
        ("POST", f"{API}/runs", {"force_overwrite": True}),
    ):
        problem(client.request(method, path, json=body, headers=operator), 403)
    assert client.get(f"{API}/overrides").json()["overrides"] == []
    run = client.post(f"{API}/runs", json={"force_overwrite": True}, headers=token(bench, "admin"))
    assert (run.status_code, run.json()["options"]) == (202, {"force_overwrite": True})


def test_the_feed_of_changes(client: Client, bench: Bench) -> None:
    """Changes are listed newest first, by entity, key, run and time, page by page; a rollback is among them."""
    bench.write_lines("sheet.jsonl", [partner("a", 1, "Alpha 2"), partner("d", 4, "Delta")])
    report = bench.sync("files", allow_mass_delete=True)
    found = client.get(f"{API}/changes").json()["changes"]
    assert len(found) == 3 + len(ODD_KEYS)
    changes = {change["_key"]: change for change in found}
    assert (changes["a"]["change"], changes["a"]["new"]["name"]) == ("updated", "Alpha 2")
    assert (changes["d"]["change"], changes["d"]["old"]) == ("inserted", None)
    assert (changes["/"]["change"], changes["/"]["new"]) == ("deleted", None)
    assert {change["run_id"] for change in found} == {report["run_id"]}

    page = client.get(f"{API}/changes", params={"limit": 5}).json()
    rest = client.get(f"{API}/changes", params={"before": page["next_before"]}).json()
    assert (page["changes"] + rest["changes"], rest["next_before"]) == (found, None)
    assert client.get(f"{API}/changes", params={"run": 1}).json()["changes"] == []
    since = found[0]["published_at"]
    assert client.get(f"{API}/changes", params={"since": since}).json()["changes"] == found
    assert client.get(f"{API}/changes", params={"since": "2999-01-01"}).json()["changes"] == []
    client.post(f"{API}/rollback").raise_for_status()
    (back, first) = client.get(f"{API}/changes", params={"entity": "partners", "key": "a"}).json()["changes"]
    assert (back["is_rollback"], back["new"]) == (True, first["old"])
    for wrong in ({"entity": "nobody"}, {"run": 99}, {"since": "yesterday"}, {"limit": 1001}, {"keys": "a"}):
        problem(client.get(f"{API}/changes", params=wrong), 422)


def test_the_life_of_a_row(client: Client, bench: Bench) -> None:
    """History tells a row's changes, overrides and conflicts, by any of its keys; an unknown row is a 404."""
    client.put(f"{row('a')}/overrides/name", json={"value": "Aleph", "reason": "they said so"})
    bench.sync("files")
    told = client.get(f"{row('1')}/history").json()
    assert told["events"][0]["event"] == "updated"
    assert {event["event"] for event in told["events"]} == {"updated", "override set", "conflict", "first published"}
    (override,) = [event for event in told["events"] if event["event"] == "override set"]
    assert (override["new"], override["done_by"], override["detail"]) == (
        "Aleph",
        "SYNCLINE_SECRET_KEY",
        "they said so",
    )
    short = client.get(f"{row('a')}/history", params={"limit": 1}).json()
    assert (short["events"], short["has_more"], told["has_more"]) == (told["events"][:1], True, False)
    problem(client.get(f"{row('nowhere')}/history"), 404)
    problem(client.get(f"{API}/entities/nobody/rows/a/history"), 404)


def test_lineage_and_mapping(client: Client, bench: Bench) -> None:
    """Each field of a row tells source, stream, path, load, run and what others say; the mapping does of an entity."""
    (name,) = client.get(f"{row('1')}/lineage", params={"column": "name"}).json()["fields"]
    assert (name["value"], name["rule"], name["source"]) == ("Alpha", "source_of_truth", "sheet")
    assert (name["stream"], name["path"], name["row_number"]) == ("files.sheet", "name", 1)
    assert name["candidates"] == {"sheet": "Alpha", "crm": "Alfa"}
    assert name["run_id"] == bench.runs()[0]["run_id"]
    columns = {field["column_name"] for field in client.get(f"{row('a')}/lineage").json()["fields"]}
    assert columns == {"_key", "code", "number", "name", "price"}
    mapping = client.get(f"{PARTNERS}/mapping").json()["columns"]
    of_name = [
        (column["source"], column["stream"], column["path"]) for column in mapping if column["column_name"] == "name"
    ]
    assert of_name == [("sheet", "files.sheet", "name"), ("crm", "files.crm", "name")]
    problem(client.get(f"{row('nowhere')}/lineage"), 404)
    problem(client.get(f"{row('a')}/lineage", params={"column": "nothing"}), 422)
    problem(client.get(f"{API}/entities/nobody/rows/a/lineage"), 404)
    problem(client.get(f"{API}/entities/nobody/mapping"), 404)


def test_what_was_never_published(bench: Bench) -> None:
    """An entity that has a candidate and was never published is a problem 409, whatever is asked of its rows."""
    bench.sync("shop", dry_run=True)
    with in_process(bench) as client:
        people = f"{API}/entities/people"
        for path in ("mapping", "rows/1/history", "rows/1/lineage"):
            problem(client.get(f"{people}/{path}"), 409)
        problem(client.put(f"{people}/rows/1/overrides/name", json={"value": "x"}), 409)
        assert client.get(f"{API}/conflicts", params={"entity": "people"}).json()["conflicts"] == []


def test_external_references(client: Client, bench: Bench) -> None:
    """References are found by type, source, key and id, and counted; those that are gone for long are found by that."""
    (found,) = client.get(f"{API}/references", params={"key": "a/b"}).json()["references"]
    assert (found["type"], found["source"], found["external_key"], found["gone_at"]) == (
        "partner",
        "files",
        "a/b",
        None,
    )
    assert found["ref_id"] == str(bench.value("select syncline.external_id('partner', 'files', 'a/b')"))
    by_id = client.get(f"{API}/references", params={"id": found["ref_id"], "type": "partner", "source": "files"}).json()
    assert by_id == {"references": [found], "has_more": False}
    assert client.get(f"{API}/references", params={"limit": 2}).json()["has_more"] is True
    bench.write_lines("sheet.jsonl", [])
    bench.sync("files", allow_mass_delete=True)
    (counts,) = client.get(f"{API}/references/status").json()["references"]
    known = 3 + len(ODD_KEYS)
    expected = {"type": "partner", "source": "files", "known": known, "gone": known - 3, "gone_for_90_days": 0}
    assert counts == expected
    assert len(client.get(f"{API}/references", params={"unseen_for": "0s"}).json()["references"]) == known - 3
    assert client.get(f"{API}/references", params={"unseen_for": "90d"}).json()["references"] == []
    for wrong in ({"id": "17"}, {"unseen_for": "long"}, {"unseen_for": "-1d"}, {"limit": 0}, {"kind": "x"}):
        problem(client.get(f"{API}/references", params=wrong), 422)


def test_no_value_is_logged(client: Client) -> None:
    """What the log says of a decision holds neither the value nor the reason."""
    with capture_logs() as logs:
        client.put(f"{row('a')}/overrides/name", json={"value": "v4lue", "reason": "r3ason"}).raise_for_status()
        problem(client.put(f"{row('a')}/overrides/number", json={"value": "v4lue"}), 422)
        client.get(f"{row('a')}/lineage").raise_for_status()
    assert len(logs) >= 3
    assert "v4lue" not in str(logs)
    assert "r3ason" not in str(logs)


def test_the_runner_role_has_the_rights(client: Client, bench: Bench) -> None:
    """As the database user that the API has in production, every one of these endpoints works."""
    number = ids(client)["a"]
    with three_roles(bench.dsn) as roles:
        roles.grant()
        with in_process(bench, dsn=roles.dsn(roles.runner)) as runner:
            answers = [
                runner.post(f"{API}/conflicts/{number}/ignore"),
                runner.post(f"{API}/conflicts/{number}/resolve", json={"use": "crm"}),
                runner.post(f"{API}/conflicts/{number}/lift"),
                runner.put(f"{row('a')}/overrides/name", json={"value": "Aleph"}),
                runner.delete(f"{row('a')}/overrides/name"),
                *(runner.get(API + path) for path in READ),
            ]
    assert {answer.status_code for answer in answers} == {200, 204}, [answer.text for answer in answers]
