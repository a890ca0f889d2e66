"""The Google Sheets connector against a server that behaves as the API does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from syncline.config import Stream, StreamSettings, convert
from syncline.connectors import Context, Fetch, Page
from syncline.connectors.google_sheets.connector import (
    GoogleSheetsConnector,
    GoogleSheetsSource,
    GoogleSheetsStream,
)
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError
from tests.projects import Bench
from tests.sheets import EMAIL, SPREADSHEET, Date, Sheets, Tab, private_key


@pytest.fixture
def sheets() -> Iterator[Sheets]:
    made = Sheets()
    made.tabs = {
        "People": Tab([["id", "name", "salary"], ["1", "Ada", "100"], ["2", "", ""], ["3"]], grid_rows=1000),
        "Ann's prices": Tab([["sku", "price"], ["a", (1.5, "€1.50")]]),
        "Chart": Tab([], kind="OBJECT"),
        "Empty": Tab([]),
    }
    yield made
    made.close()


class Budget(Context):
    """Remembers what was reserved."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reserved: list[tuple[str, int, float]] = []

    def reserve(self, budget: str, requests: int, seconds: float) -> float:
        self.reserved.append((budget, requests, seconds))
        return 0.0


def connect(sheets: Sheets, context: Context | None = None, **source: Any) -> GoogleSheetsConnector:
    settings = {
        "spreadsheet": SPREADSHEET,
        "credentials": sheets.credentials(),
        "api_url": sheets.url,
        "retries": 3,
        "backoff": 0.01,
        "max_wait": 1,
        **source,
    }
    return GoogleSheetsConnector(convert(settings, GoogleSheetsSource, "source hr"), context or Context(Path()))


def read_pages(
    sheets: Sheets, tab: str = "People", key: str = "id", source: dict[str, Any] | None = None, **stream: Any
) -> list[Page]:
    connector = connect(sheets, **(source or {}))
    settings = convert({"tab": tab, **stream}, GoogleSheetsStream, "stream hr.people")
    keys = () if key == "none" else (key,)
    label = Stream("hr", "people", keys, StreamSettings(key=key), {}, Path("sources.yml"))
    try:
        return list(connector.read(Fetch(stream=label, settings=settings)))
    finally:
        connector.close()


def read(sheets: Sheets, tab: str = "People", key: str = "id", **stream: Any) -> list[Any]:
    return [json.loads(record) for page in read_pages(sheets, tab, key, **stream) for record in page.records]


# rows


def test_rows_are_objects_by_the_header(sheets: Sheets) -> None:
    """A row becomes an object in the header's order; cells that are empty, or left out at its end, are null."""
    (page,) = read_pages(sheets)
    assert page.ordinal == 2
    assert page.records == [
        b'{"id":"1","name":"Ada","salary":"100"}',
        b'{"id":"2","name":null,"salary":null}',
        b'{"id":"3","name":null,"salary":null}',
    ]


def test_rows_keep_the_numbers_of_the_sheet(sheets: Sheets) -> None:
    """Blank rows are left out, and a page's ordinal is the number that the sheet shows."""
    rows: list[list[Any]] = [["Report"], [], ["id", "name"], ["what", "who"], ["1", "Ada"], [], ["", ""], ["2"]]
    sheets.tabs["People"].rows = rows
    pages = read_pages(sheets, header_row=3, data_row=5)
    assert [(page.ordinal, page.records) for page in pages] == [
        (5, [b'{"id":"1","name":"Ada"}']),
        (8, [b'{"id":"2","name":null}']),
    ]
    pages = read_pages(sheets, header_row=3, data_row=5, skip_empty=False)
    assert [(page.ordinal, len(page.records)) for page in pages] == [(5, 4)]


def test_range(sheets: Sheets) -> None:
    """A range is a part of the sheet, whose first row is the header; row numbers stay the sheet's."""
    sheets.tabs["People"].rows = [[], ["", "id", "name", ""], ["x", "1", "Ada", "y"], ["", "2", "Bob"], ["", "3", "Cy"]]
    (page,) = read_pages(sheets, range="B2:C4")
    assert page.ordinal == 3
    assert page.records == [b'{"id":"1","name":"Ada"}', b'{"id":"2","name":"Bob"}']


def test_values_as_shown_or_raw(sheets: Sheets) -> None:
    """Formatted values are texts as the sheet shows them; raw ones are numbers and truth values, dates as chosen."""
    day = Date(45293, "02/01/2024")
    sheets.tabs["People"].rows = [["id", "price", "is_on", "at"], [(7, "7"), (1234.5, "€1,234.50"), True, day]]
    assert read(sheets) == [{"id": "7", "price": "€1,234.50", "is_on": "TRUE", "at": "02/01/2024"}]
    assert read(sheets, values="raw") == [{"id": 7, "price": 1234.5, "is_on": True, "at": "02/01/2024"}]
    assert read(sheets, values="raw", dates="serial") == [{"id": 7, "price": 1234.5, "is_on": True, "at": 45293}]


def test_tab_name_with_a_quote(sheets: Sheets) -> None:
    """A tab may have any name, and its rows may go without a key."""
    assert read(sheets, "Ann's prices", "none") == [{"sku": "a", "price": "€1.50"}]


@pytest.mark.parametrize("block", [50, 299, 300, 301, 100_000])
def test_large_tab_is_read_in_blocks(sheets: Sheets, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Blocks of any size give each row once, with its number."""
    monkeypatch.setattr("syncline.connectors.google_sheets.connector.BLOCK_CELLS", block)
    rows = [[str(number), f"name {number}"] for number in range(2, 302)]
    rows[100] = []
    sheets.tabs["People"] = Tab([["id", "name"], *rows], grid_rows=310)
    pages = read_pages(sheets)
    numbers = [page.ordinal + at for page in pages for at in range(len(page.records))]  # type: ignore[operator]
    found = [json.loads(record)["id"] for page in pages for record in page.records]
    assert found == [str(number) for number in numbers] == [row[0] for row in rows if row]


def test_tab_that_grows_while_it_is_read(sheets: Sheets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is put in between two blocks moves those below, so the load begins again another time."""
    monkeypatch.setattr("syncline.connectors.google_sheets.connector.BLOCK_CELLS", 10)
    tab = sheets.tabs["People"] = Tab([["id"], *([str(number)] for number in range(100))])
    connector = connect(sheets)
    stream = Stream("hr", "people", ("id",), StreamSettings(key="id"), {}, Path("sources.yml"))
    pages = connector.read(Fetch(stream=stream, settings=GoogleSheetsStream(tab="People")))
    next(pages)
    tab.rows.insert(1, ["new"])
    with pytest.raises(SourceUnavailableError, match="changed its size"):
        list(pages)
    connector.close()


def test_tab_without_rows(sheets: Sheets) -> None:
    """A header alone is a tab of no records."""
    sheets.tabs["People"] = Tab([["id", "name"]])
    assert read(sheets) == []


# the header


@pytest.mark.parametrize(
    ("header", "message", "hint"),
    [
        (["id", "", "name"], "column B has no name", "Name each column"),
        (["id", "", "name", "", "x"], "columns B, D have no name", "Name each column"),
        (["id", "name", "id"], "columns A and C are both named 'id'", "name of its own"),
        ([], "names no column", "header_row"),
        (["Id", "name"], "the header has no column 'id'", "It has 'Id', 'name'. Was it renamed?"),
    ],
)
def test_header_that_does_not_do(sheets: Sheets, header: list[str], message: str, hint: str) -> None:
    """A header with a gap, a name twice, none at all or without the key names the columns that are wrong."""
    sheets.tabs["People"].rows[0] = header
    with pytest.raises(SourceError, match=message) as caught:
        read(sheets)
    assert caught.value.message.startswith("hr.people: tab 'People'")
    assert hint in str(caught.value.hint)


def test_column_that_was_renamed(sheets: Sheets) -> None:
    """A column that the stream relies on is missed by name."""
    assert len(read(sheets, columns=["name", "salary"])) == 3
    with pytest.raises(SourceError, match="no column 'wage', 'town'") as caught:
        read(sheets, columns=["name", "wage", "town"])
    assert "'id', 'name', 'salary'" in str(caught.value.hint)


def test_tab_that_is_missing(sheets: Sheets) -> None:
    """A tab that is not there is an error that lists those that are; a chart is none."""
    with pytest.raises(SourceError, match="no tab 'Staff'") as caught:
        read(sheets, "Staff")
    assert caught.value.hint == "Its tabs: 'People', \"Ann's prices\", 'Empty'."


# access


def test_token_is_asked_for_once(sheets: Sheets) -> None:
    """One token, signed for by the account's key, serves all requests until it ends."""
    read(sheets)
    assert len(sheets.tokens) == 1
    assert {request.token for request in sheets.requests} == set(sheets.tokens)


def test_token_that_ended_is_replaced(sheets: Sheets) -> None:
    """A token that the API refuses is exchanged for another in the middle of a load."""
    sheets.token_uses = 1
    assert len(read(sheets)) == 3
    assert len(sheets.tokens) == 3


def test_tokens_that_are_refused(sheets: Sheets) -> None:
    """A new token that is refused as well ends the load."""
    sheets.token_uses = 0
    with pytest.raises(SourceError, match="refused twice"):
        read(sheets)
    assert len(sheets.tokens) == 2


def test_key_that_is_not_the_accounts(sheets: Sheets) -> None:
    """A signature by another key is refused by the token endpoint, and the error says what to check."""
    with pytest.raises(SourceError, match=r"no access token: .*key was refused \(invalid_grant\)") as caught:
        read_pages(sheets, source={"credentials": sheets.credentials(private_key(1))})
    assert sheets.refusals == ["Invalid JWT Signature."]
    assert "key is not deleted" in str(caught.value.hint)
    assert "PRIVATE" not in caught.value.message


def test_spreadsheet_that_is_not_shared(sheets: Sheets) -> None:
    """The error names the address to share the spreadsheet with."""
    sheets.is_shared = False
    with pytest.raises(SourceError, match="not shared") as caught:
        read(sheets)
    assert caught.value.hint == f"Share it with {EMAIL}; a viewer is enough."


def test_api_that_is_not_enabled(sheets: Sheets) -> None:
    """A project without the API is another matter than a sheet that is not shared."""
    sheets.is_enabled = False
    with pytest.raises(SourceError, match="not enabled"):
        read(sheets)


def test_spreadsheet_that_is_not_there(sheets: Sheets) -> None:
    """An id that nobody knows is an error."""
    with pytest.raises(SourceError, match="no such spreadsheet"):
        read_pages(sheets, source={"spreadsheet": "1xyz"})


def test_address_of_the_browser(sheets: Sheets) -> None:
    """The spreadsheet may be named by what the browser shows."""
    address = f"https://docs.google.com/spreadsheets/d/{SPREADSHEET}/edit?gid=0#gid=0"
    assert read_pages(sheets, source={"spreadsheet": address})


def test_credentials_in_a_file(sheets: Sheets, tmp_path: Path) -> None:
    """The key may be a file of the project."""
    (tmp_path / "key.json").write_text(sheets.credentials())
    connector = connect(sheets, Context(tmp_path), credentials="key.json")
    assert [found.name for found in connector.discover()] == ["people", "ann_s_prices"]
    connector.close()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"credentials": "none.json"}, "neither JSON nor a file"),
        ({"credentials": '{"type": "authorized_user"}'}, "no service account key"),
        ({"credentials": "{"}, "no service account key"),
        ({"spreadsheet": "a b"}, "neither an id nor an address"),
        ({"api_url": "sheets"}, "no address"),
    ],
)
def test_settings_that_cannot_be(sheets: Sheets, setting: dict[str, str], message: str) -> None:
    """Wrong settings are told before anything is asked, without their values."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        connect(sheets, **setting)
    assert caught.value.hint
    assert sheets.requests == []


def test_package_that_is_missing(sheets: Sheets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Google's package the error says what to install."""
    monkeypatch.setitem(sys.modules, "google.oauth2", None)
    with pytest.raises(ConfigurationError, match="google-auth") as caught:
        connect(sheets)
    assert caught.value.hint == "pip install 'syncline[google-sheets]'"


def test_credentials_do_not_show(sheets: Sheets) -> None:
    """The settings do not show the key."""
    settings = GoogleSheetsSource(spreadsheet=SPREADSHEET, credentials=sheets.credentials())
    assert "PRIVATE" not in repr(settings)


# quota


def test_busy_api_is_asked_again(sheets: Sheets) -> None:
    """A quota that is used up, a short trouble of the API and one of the token endpoint cost a wait."""
    sheets.failures = [(429, {"Retry-After": "0"}), (503, {})]
    sheets.token_failures = [(503, {})]
    assert len(read(sheets)) == 3
    sheets.failures = [(429, {"Retry-After": "100"})]
    with pytest.raises(SourceUnavailableError, match=r"429.* it asks to wait 100 s"):
        read(sheets)


def test_token_endpoint_that_is_down(sheets: Sheets) -> None:
    """A token endpoint that stays down is a failure that may pass."""
    sheets.token_failures = [(503, {})] * 3
    with pytest.raises(SourceUnavailableError, match="no access token"):
        read(sheets)


def test_requests_are_taken_out_of_a_budget(sheets: Sheets, tmp_path: Path) -> None:
    """All requests of one account to the API share a budget; the token endpoint has none."""
    budget = Budget(tmp_path)
    connector = connect(sheets, budget)
    list(connector.discover())
    connector.close()
    assert budget.reserved == [(f"google_sheets {EMAIL}", 60, 60.0)] * len(sheets.requests)
    sheets.failures = [(503, {})]
    connector = connect(sheets, budget, rate_limit={"requests": 5, "seconds": 1})
    list(connector.discover())
    connector.close()
    assert budget.reserved[-1] == (f"google_sheets {EMAIL}", 5, 1.0)
    assert len(budget.reserved) == len(sheets.requests)


# discovery and a whole run


def test_discover(sheets: Sheets) -> None:
    """Each tab with a header in its first row is a stream, with a sample."""
    connector = connect(sheets)
    people, prices = connector.discover()
    connector.close()
    assert (people.name, people.settings, len(people.records)) == ("people", {"tab": "People"}, 3)
    assert (prices.name, prices.settings) == ("ann_s_prices", {"tab": "Ann's prices"})


SOURCES = """
sources:
  - name: files
    schema: raw_files
    config:
      meta:
        syncline:
          connector: google_sheets
          spreadsheet: ${SHEET_ID}
          credentials: ${SHEET_KEY}
          api_url: ${SHEET_API}
    tables:
      - name: visits
        config: {meta: {syncline: {tab: Visits, key: id, columns: [id, place]}}}
"""


def test_sheet_through_a_run(bench: Bench, sheets: Sheets) -> None:
    """A tab is loaded, built and published; a bad row is told by its number in the sheet."""
    for file in bench.models.iterdir():
        if file.name != "visits.sql":
            file.unlink()
    bench.write(bench.models / "sources.yml", SOURCES)
    with (bench.root / ".env").open("a") as out:
        out.write(f"SHEET_ID={SPREADSHEET}\nSHEET_KEY='{sheets.credentials()}'\nSHEET_API={sheets.url}\n")
    rows = [["id", "place"], ["1", "here"], [], ["2", "there"], ["", "nowhere"]]
    sheets.tabs["Visits"] = Tab(rows, grid_rows=1000)
    bench.sync("files")
    assert [(key, row["place"]) for key, row in bench.current("visits").items()] == [("1", "here"), ("2", "there")]
    (error,) = bench.errors(stream="files.visits")
    assert error["row_number"] == 5
    rows[3][1] = "elsewhere"
    bench.sync("files")
    assert bench.current("visits")["2"]["place"] == "elsewhere"
    rows[0][1] = "location"
    failed = bench.fail("files")
    assert "no column 'place'" in failed.message
    assert "'location'" in str(failed.hint)
    bench.verify("visits")


HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "google-sheets.md").read_text(encoding="utf-8")


def test_how_to(bench: Bench, sheets: Sheets) -> None:
    """The configuration and the variables of the how-to load as they are printed, but for the API's address."""
    for model in ("people", "visits", "prices"):
        (bench.models / f"{model}.sql").unlink()
    blocks = dict(re.findall(r"^   ```(\w+)\n(.*?)^   ```", HOW_TO, re.MULTILINE | re.DOTALL))
    source, line = dedent(blocks["yaml"]), "          spreadsheet: "
    bench.write(bench.models / "sources.yml", source.replace(line, f"          api_url: {sheets.url}\n{line}"))
    with (bench.root / ".env").open("a") as out:
        out.write(dedent(blocks["sh"]))
    (bench.root / "keys").mkdir(exist_ok=True)
    (bench.root / "keys" / "syncline.json").write_text(sheets.credentials())
    sheets.tabs["Partners"] = Tab([["partner_id", "name", "status"], ["1", "Acme", "open"]])
    loaded = bench.call("load", "planning")
    assert loaded.returncode == 0, loaded.stderr
    assert bench.live("planning.partners") == {"1": {"partner_id": "1", "name": "Acme", "status": "open"}}
