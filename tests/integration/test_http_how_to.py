"""The how-to page about HTTP APIs: its configuration, as printed, reads an API as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from syncline.config import read_project
from syncline.connectors import check_settings
from tests.http_api import Api, Reply, Request
from tests.shop import Shop

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def yaml_of(page: str) -> str:
    found = re.search(r"^```yaml\n(.*?)^```", (HOW_TO / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


def serve_school(request: Request) -> Reply:
    if request.path == "/token":
        return Reply({"access_token": "t1", "expires_in": 60})
    if request.headers.get("authorization") != "Bearer t1":
        return Reply(status=401)
    if request.path == "/classes":
        page = int(request.query.get("page", "1"))
        return Reply(
            {"items": [{"id": page, "name": f"class {page}"}], "next": "/classes?page=2" if page == 1 else None}
        )
    if request.path == "/classes/1/students":
        return Reply([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}])
    if request.path == "/marks":
        page = int(request.query["page"])
        return Reply({"pages": 2, "data": [{"id": page, "mark": 1, "changed_at": f"2026-03-01T00:0{page}:00Z"}]})
    return Reply(status=404)


def test_configuration_of_the_page(api: Api, database: str, tmp_path: Path) -> None:
    """All pages of classes, the students of each, and the marks since the last minute seen."""
    shop = Shop(api, database, tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text("name: school\n")
    (tmp_path / "models" / "sources.yml").write_text(yaml_of("http-api.md"))
    variables = {"SCHOOL_API_URL": api.url, "SCHOOL_CLIENT_ID": "syncline", "SCHOOL_CLIENT_SECRET": "secret"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    api.answer = serve_school
    assert shop.command("migrate").exit_code == 0
    for _ in range(2):  # all there is, then an increment
        ended = shop.command("load", "school")
        assert ended.exit_code == 0, ended.output
    count = "select (select count(*) from raw_school.{}) as n"
    counts = {name: shop.query(count.format(name))[0]["n"] for name in ("classes", "students", "marks")}
    assert counts == {"classes": 2, "students": 2, "marks": 2}
    since = [request.query["since"] for request in api.requests if request.path == "/marks"]
    assert since == ["2026-01-01T00:00:00Z"] * 2 + ["2026-03-01T00:01:00Z"] * 2


@pytest.mark.parametrize("page", ["http-api.md", "coming-from-dlt.md"])
def test_yaml_is_accepted(page: str, tmp_path: Path) -> None:
    """What is printed is a sources file that Syncline takes."""
    (tmp_path / "models").mkdir()
    (tmp_path / "dbt_project.yml").write_text("name: documented\n")
    (tmp_path / "models" / "sources.yml").write_text(yaml_of(page))
    assert len(yaml.safe_load(yaml_of(page))["sources"]) == 1
    for source in read_project(tmp_path).sources.values():
        check_settings(source)
