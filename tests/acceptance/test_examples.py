"""The examples: made with `syncline init`, synced, then looked at by SQL; where a page is a walk, as it is printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncline import embedded
from tests.walk import Walk


class Example:
    """A project made from an example, on an embedded server of its own."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.name = root, name
        hidden = {"DATABASE_URL", "PARTNERS_SHEET", "GOOGLE_SERVICE_ACCOUNT"}
        prefixes = ("REPLICA_", "SCHOOL_API_", "STAFF_API_", "SHEETS_API_", "CRM_API_")
        self.environment = {
            key: value for key, value in os.environ.items() if key not in hidden and not key.startswith(prefixes)
        }
        # cron's line finds `syncline` on the PATH.
        self.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.call(sys.executable, "-m", "syncline", "init", str(root), "--example", name, cwd=root.parent)

    def call(self, *command: str, code: int = 0, cwd: Path | None = None) -> str:
        """Run a command and return what it printed; its exit code has to be `code`."""
        ended = subprocess.run(
            command,
            cwd=cwd or self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == code, f"{command}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def said(self, *arguments: str) -> Any:
        return json.loads(self.call(sys.executable, "-m", "syncline", *arguments, "--json"))

    def diff(self, entity: str) -> list[dict[str, Any]]:
        lines = self.call(sys.executable, "-m", "syncline", "diff", entity, "--json").splitlines()
        return [json.loads(line) for line in lines]

    def sync(self, code: int = 0) -> dict[str, Any]:
        """Run the example's sync.py and return the run's report."""
        report = json.loads(self.call(sys.executable, f"examples/{self.name}/sync.py", "--json", code=code))
        assert isinstance(report, dict)
        return report

    def run_by_cron(self, folder: str, **variables: str) -> dict[str, Any]:
        """Run the line of the example's crontab here instead of in `folder`; return the report of its run."""
        (self.root / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in variables.items()))
        text = (self.root / "examples" / self.name / "crontab").read_text(encoding="utf-8")
        (line,) = re.findall(r"^[\d*/]+ [\d*/]+ \* \* \* (.+)$", text, re.MULTILINE)
        assert folder in line
        self.call("sh", "-c", line.replace(folder, str(self.root)))
        report = self.said("runs", "--limit", "1")["runs"][0]
        assert isinstance(report, dict)
        return report

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(embedded.ensure_running(self.root)) as connection:
            return connection.execute(statement.encode()).fetchall()

    def replica(self) -> Path:
        return self.root / ".syncline" / "replica"

    def stop(self) -> None:
        embedded.stop(self.replica())
        self.call(sys.executable, "-m", "syncline", "stop")


@contextmanager
def made(root: Path, name: str) -> Iterator[Example]:
    """Make the example; stop its servers at the end."""
    root.mkdir(exist_ok=True)
    example = Example(root / "x", name)
    try:
        yield example
    finally:
        example.stop()
    assert not embedded.is_running(example.root)
    assert not embedded.is_running(example.replica())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Example]:
    with made(tmp_path, "replica") as example:
        yield example


@pytest.fixture
def school(tmp_path: Path) -> Iterator[Example]:
    with made(tmp_path, "school") as example:
        yield example


@pytest.fixture
def staff(tmp_path: Path) -> Iterator[Example]:
    with made(tmp_path / "a nursery", "staff") as example:
        yield example


@pytest.fixture
def partners(tmp_path: Path) -> Iterator[Example]:
    with made(tmp_path / "an agency", "partners") as example:
        yield example


@contextmanager
def walked(example: Example) -> Iterator[Walk]:
    """Do all that the example's page shows; yield while its servers run."""
    walk = Walk(example.root / "examples" / example.name / "README.md", example.root, example.environment)
    try:
        walk.go()
        assert len(walk.done) > 10
        yield walk
    finally:
        walk.stop()


def changes(report: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """What the run inserted, updated and deleted, by entity."""
    return {name: (e["inserted"], e["updated"], e["deleted"]) for name, e in report["entities"].items()}


def states(report: dict[str, Any]) -> dict[str, str]:
    return {name: entity["state"] for name, entity in report["entities"].items()}


SHOP = {
    "customers": "select customer_id, email, full_name, address, updated_at from {}",
    "categories": "select category_id, name from {}",
    "products": "select product_id, category_id, name, price, labels, updated_at from {}",
    "orders": "select order_id, customer_id, status::text, placed_at, updated_at from {}",
    "order_items": "select (order_id, line)::text, product_id, quantity, unit_price from {}",
    "stock": "select (product_id, warehouse)::text, quantity from {}",
}
"""What replica and production both have, each row's key first."""

STOCK = "(select product_id, warehouse, sum(quantity)::bigint as quantity from stock_movements group by 1, 2) as s"

GONE = {"customers": 2, "orders": 6, "order_items": 12}
"""How many rows the replica deletes in two changes."""


def differing(shop: Example) -> dict[str, int]:
    """Assert that each of the replica's rows is in production, value by value; count the rows that only it has."""
    extra = {}
    with psycopg.connect(embedded.ensure_running(shop.replica())) as replica:
        for name, statement in SHOP.items():
            source = STOCK if name == "stock" else name
            there = {row[0]: row for row in replica.execute(statement.format(source).encode()).fetchall()}
            found = shop.rows(statement.format(f"{name}_current"))
            here = {row[0]: row for row in found}
            assert there
            assert len(here) == len(found), f"{name} has a key twice"
            assert {key: here.get(key) for key in there} == there, name
            if len(here) > len(there):
                extra[name] = len(here) - len(there)
    return extra


def test_the_replica(shop: Example) -> None:
    """Three syncs insert and update and delete nothing; every value survives; going back, and on, loses nothing."""
    first, second, third = shop.sync(), shop.sync(), shop.sync()
    sizes = {"customers": 200, "categories": 6, "products": 80, "orders": 400, "order_items": 800, "stock": 160}
    assert changes(first) == {name: (size, 0, 0) for name, size in sizes.items()}
    same = {"customers": (2, 3, 0), "categories": (0, 0, 0), "products": (1, 4, 0), "stock": (0, 2, 0)}
    assert changes(second) == same | {"orders": (10, 0, 0), "order_items": (20, 0, 0)}
    assert changes(third) == same | {"orders": (10, 10, 0), "order_items": (20, 0, 0)}
    orders = third["streams"]["replica.orders"]
    assert (orders["kind"], orders["new"], orders["changed"], orders["gone"]) == ("increment", 10, 10, 0)
    assert orders["read"] < 30
    assert third["row_errors"] == 0
    assert shop.said("verify")["problems"] == {}
    assert differing(shop) == GONE

    kinds = [change["change"] for change in shop.diff("orders")]
    assert (kinds.count("inserted"), kinds.count("updated"), len(kinds)) == (10, 10, 20)
    assert shop.said("rollback")["rolled_back"] == ["customers", "order_items", "orders", "products", "stock"]
    assert shop.rows("select count(*) from orders_current") == [(410,)]
    assert shop.said("publish") == {"published": {}}
    again = shop.run_by_cron("/srv/shop", REPLICA_URL=embedded.ensure_running(shop.replica()))
    assert (again["status"], changes(again)) == ("succeeded", changes(third))
    assert differing(shop) == GONE
    assert shop.said("verify")["problems"] == {}


@contextmanager
def serving(school: Example, generation: int) -> Iterator[dict[str, str]]:
    """Run the school's server by itself; yield what .env has to say of it."""
    command = [sys.executable, "examples/school/server.py", "--token", "t0ken", "--generation", str(generation)]
    server = subprocess.Popen(command, cwd=school.root, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        url = server.stdout.readline().strip().removeprefix("listening on ")
        yield {"SCHOOL_API_URL": url, "SCHOOL_API_TOKEN": "t0ken"}
    finally:
        server.terminate()
        server.communicate(timeout=10)


def test_the_school(school: Example) -> None:
    """One entity's failure holds back no other, the next sync mends it, and the same records twice change nothing."""
    sizes = {"classes": 8, "subjects": 6, "users": 172, "enrollments": 960}
    assert changes(school.sync()) == {name: (size, 0, 0) for name, size in sizes.items()}

    failed = school.sync(code=3)
    (error,) = failed["errors"]
    assert "enrollments: checks failed: relationships on enrollments.user_id: 6 rows" in error["message"]
    good = {"classes": "current", "subjects": "current", "users": "current"}
    assert states(failed) == good | {"enrollments": "failed"}
    few = {"classes": (0, 1, 0), "subjects": (0, 1, 0)}
    assert changes(failed) == few | {"users": (1, 1, 1), "enrollments": (6, 1, 0)}
    assert school.rows("select count(*) from users_current where user_id = 'u0173'") == [(1,)]
    assert school.rows("select count(*) from enrollments_current") == [(960,)]

    mended = school.sync()
    assert states(mended) == good | {"enrollments": "current"}
    assert changes(mended) == few | {"users": (1, 1, 0), "enrollments": (12, 2, 6)}
    orphans = "select count(*) from enrollments_current where user_id not in (select user_id from users_current)"
    assert school.rows(orphans) == [(0,)]
    assert school.said("verify")["problems"] == {}
    kinds = [change["change"] for change in school.diff("enrollments")]
    assert (kinds.count("inserted"), kinds.count("updated"), kinds.count("deleted")) == (12, 2, 6)

    before = school.rows("select * from enrollments_current order by _key")
    with serving(school, 3) as variables:
        again = school.run_by_cron("/srv/school", **variables)
    assert (again["status"], set(states(again).values())) == ("succeeded", {"unchanged"})
    assert school.rows("select * from enrollments_current order by _key") == before
    assert school.said("rollback")["rolled_back"] == ["classes", "enrollments", "subjects", "users"]
    assert school.rows("select count(*) from enrollments_current") == [(960,)]
    assert school.said("verify")["problems"] == {}


def test_the_staff(staff: Example) -> None:
    """The page's walk holds; who left is marked and came back, nothing is lost, and each run says who asked for it."""
    with walked(staff):
        staff.rows("select syncline.fire_schedule('every-6h', clock_timestamp())")
        staff.call(sys.executable, "-m", "syncline", "worker", "--burst")
        scheduled, manual, *others = staff.said("runs")["runs"]
    assert (manual["trigger"], manual["triggered_by"]) == ("manual", "ann@nursery.example.com")
    assert changes(manual) == {"employees": (1, 3, 0), "employments": (2, 1, 0)}
    assert (scheduled["trigger"], scheduled["schedule"], scheduled["status"]) == ("scheduler", "every-6h", "succeeded")
    assert set(states(scheduled).values()) == {"unchanged"}
    assert [(run["run_id"], run["trigger"]) for run in others] == [(3, "cli"), (2, "cli"), (1, "cli")]

    away = staff.rows("select employee_id from employees_current where _missing_since is not null")
    assert away == [("e022",)]
    was_away = "select _missing_since is not null, _valid_to is null from employees_history where employee_id = '{}'"
    assert staff.rows(was_away.format("e021") + " order by _valid_from") == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert staff.rows(was_away.format("e022") + " order by _valid_from") == [(False, False), (True, True)]
    here = "select count(*), count(*) filter (where _missing_since is null) from employees_as_of({})"
    ended = "(select finished_at from syncline.runs where run_id = {})"
    assert [staff.rows(here.format(ended.format(run)))[0] for run in (1, 2, 3, 4)] == [
        (40, 40),
        (41, 40),
        (42, 42),
        (43, 42),
    ]
    assert staff.rows("select count(*) from timeline where event = 'hired'") == [(43,)]
    assert staff.rows("select count(*) from employments_current where employee_id = 'e022'") == [(1,)]
    feed = "select change, old, new from syncline.list_changes('employees', 'e013')"
    assert staff.rows(feed) == [("updated", {"hours_per_week": 32}, {"hours_per_week": 34})]
    assert staff.said("verify")["problems"] == {}
    assert staff.said("verify", "--raw")["problems"] == {}


def test_the_partners(partners: Example) -> None:
    """The page's walk holds: rules, row errors, a dry run, conflicts, overrides and lineage; no decision is lost."""
    with walked(partners):
        one = "select brand_name, industry, email from partners_current where partner_code = '{}'"
        assert partners.rows(one.format("P-019"))[0][0] == "Juniper Home & Skincare", "the rollback brought it back"
        assert partners.rows(one.format("P-006"))[0][1] == "food"
        third = partners.said("run")
        again = partners.said("run")
    assert changes(third)["partners"] == (1, 4, 0)
    assert set(states(again).values()) == {"unchanged"}
    assert partners.rows(one.format("P-019"))[0][0] == "Juniper Skincare", "the override was lifted"
    assert partners.rows(one.format("P-006"))[0][1] == "food", "a reference fills new rows only"
    assert partners.rows(one.format("P-011"))[0][2] == "orders@birch-kitchen.example.com"
    assert partners.rows(one.format("P-046"))[0][2] is None

    typed = "select onboarded_on::text, monthly_fee::text, commission::text, is_active, tier, phone, yearly_fee::text"
    assert partners.rows(f"{typed} from partners_current where partner_code in ('P-011', 'P-016') order by 1") == [
        ("2023-03-16", "1175.00", "0.1250", True, "bronze", "+12125550011", "14100.00"),
        ("2023-04-15", "1300.00", "0.0500", True, "silver", "+12125550016", "15600.00"),
    ]
    wrong = "select row_number, column_name, severity from syncline.row_errors where closed_at is null"
    assert sorted(partners.rows(wrong)) == [(47, "email", "warning"), (103, "monthly_fee", "warning")]
    open_ = partners.said("conflicts")["conflicts"]
    assert {(row["_key"], row["column_name"]) for row in open_} >= {("P-011", "email"), ("P-019", "brand_name")}
    assert partners.said("conflicts", "list", "--overrides")["overrides"] == []
    known = "select count(*) from products_current inner join syncline.external_refs on partner_id = ref_id"
    assert partners.rows(known) == [(300,)]
    (name,) = partners.said("lineage", "partners", "P-011", "brand_name")["fields"]
    assert (name["stream"], name["sheet"]) == (
        "sheet.partners",
        {"tab": "Master Sheet", "column": "Brand Name", "row": 12},
    )
    assert partners.said("verify")["problems"] == {}
    assert partners.said("verify", "--raw")["problems"] == {}
