"""Reads the rows of Google Sheets, block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import httpx
import msgspec

from syncline.connectors import SAMPLE_RECORDS, Connector, Context, Fetch, Found, Page
from syncline.connectors.google_sheets.auth import ServiceAccount
from syncline.connectors.http.addresses import is_same_origin, parse_url
from syncline.connectors.http.transport import Limits, RateLimit, Transport
from syncline.connectors.sheet_rows import CellRange, column_letters, header_names, parse_range, stream_name
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError

BLOCK_CELLS = 50_000
"""Cells asked for at a time: about a megabyte."""

_ADDRESS = re.compile(r"https://[^/]+/spreadsheets/d/([A-Za-z0-9_-]+)(?:[/?#].*)?")
_ID = re.compile(r"[A-Za-z0-9_-]+")

_encode = msgspec.json.Encoder().encode


class GoogleSheetsSource(msgspec.Struct, frozen=True, kw_only=True):
    """One spreadsheet, by its id or address, and the service account it is shared with.

    `credentials` is the account's key: JSON text or a file. `timeout`, `backoff` and `max_wait` are seconds.
    """

    spreadsheet: str
    credentials: str
    api_url: str = "https://sheets.googleapis.com"
    rate_limit: RateLimit = RateLimit(requests=60, seconds=60)
    timeout: float = 60
    retries: Annotated[int, msgspec.Meta(ge=1)] = 5
    backoff: float = 1
    max_wait: float = 120

    def __repr__(self) -> str:
        return "GoogleSheetsSource(...)"


class GoogleSheetsStream(msgspec.Struct, frozen=True, kw_only=True):
    """One tab. Rows are counted as the sheet shows them; `columns` are names that the header must have."""

    tab: str
    range: str | None = None
    header_row: Annotated[int, msgspec.Meta(ge=1)] | None = None
    data_row: Annotated[int, msgspec.Meta(ge=2)] | None = None
    values: Literal["formatted", "raw"] = "formatted"
    dates: Literal["formatted", "serial"] = "formatted"
    columns: list[str] = []
    skip_empty: bool = True


class _Grid(msgspec.Struct, rename="camel"):
    row_count: int = 0
    column_count: int = 0


class _Tab(msgspec.Struct, rename="camel"):
    title: str
    sheet_type: str = "GRID"
    grid_properties: _Grid = msgspec.field(default_factory=_Grid)


class _Sheet(msgspec.Struct):
    properties: _Tab


class _Spreadsheet(msgspec.Struct):
    sheets: list[_Sheet] = []


class _Values(msgspec.Struct):
    values: list[list[msgspec.Raw]] = []


class _Batch(msgspec.Struct, rename="camel"):
    value_ranges: list[_Values] = []


class GoogleSheetsConnector(Connector):
    """Reads the tabs of one spreadsheet; each load is a full one."""

    SourceSettings = GoogleSheetsSource
    StreamSettings = GoogleSheetsStream
    identifying = ("tab",)

    def __init__(self, settings: GoogleSheetsSource, context: Context) -> None:
        self._account = ServiceAccount(settings.credentials, context.root)
        base = parse_url(settings.api_url, "api_url", "Leave it out, or write it as https://host.")
        self._url = base.copy_with(path=f"{base.path.rstrip('/')}/v4/spreadsheets/{_parse_id(settings.spreadsheet)}")
        limits = Limits(
            timeout=settings.timeout,
            attempts=settings.retries,
            backoff=settings.backoff,
            max_wait=settings.max_wait,
            max_response_bytes=256 << 20,
            max_response_seconds=600,
            concurrency=4,
        )
        budget, rate = f"google_sheets {self._account.email}", settings.rate_limit

        def reserve(url: httpx.URL) -> float:
            # The quota is of the API, not of the endpoint that gives tokens.
            return context.reserve(budget, rate.requests, rate.seconds) if is_same_origin(url, base) else 0.0

        self._transport = Transport(limits, None, reserve=reserve)

    def read(self, fetch: Fetch) -> Iterator[Page]:
        """Yield the tab's rows as objects; a page's ordinal is the sheet's number of its first row.

        Raises SourceError where the spreadsheet or tab is not there or not shared, where the header lacks a column
        that is wanted, and where the tab changed its size meanwhile.
        """
        stream, settings = fetch.stream, fetch.settings
        place = f"{stream.label}: tab {settings.tab!r}"
        area = parse_range(settings.range) if settings.range else CellRange()
        header_row = settings.header_row or area.first_row
        data_row = settings.data_row or header_row + 1
        if data_row <= header_row:
            raise ConfigurationError(f"{stream.label}: data_row is not below header_row", "Rows are counted from 1.")
        grid = self._find_tab(settings.tab, stream.label).grid_properties
        header = self._read_header(settings, area, header_row, place)
        _check_columns(header, [*settings.columns, *stream.key], place)
        last_row = min(area.last_row or grid.row_count, grid.row_count)
        last_column = area.first_column + len(header) - 1
        step = max(BLOCK_CELLS // len(header), 1)
        for row in range(data_row, last_row + 1, step):
            block = CellRange(area.first_column, row, last_column, min(row + step - 1, last_row))
            yield from _pages(header, self._read_cells(settings, block, place), row, skip_empty=settings.skip_empty)
        # A row that was added or taken out between two blocks moves those below it.
        if last_row - data_row >= step and self._find_tab(settings.tab, stream.label).grid_properties != grid:
            raise SourceUnavailableError(f"{place} changed its size while it was read", "Run it again.")

    def discover(self) -> Iterator[Found]:
        """Yield each tab that has a header in its first row."""
        taken: set[str] = set()
        for tab in self._tabs("the spreadsheet"):
            settings, place = GoogleSheetsStream(tab=tab.title), f"tab {tab.title!r}"
            try:
                header = self._read_header(settings, CellRange(), 1, place)
            except SourceUnavailableError:
                raise
            except SourceError:
                # An empty tab, or notes without a header.
                continue
            block = CellRange(1, 2, len(header), min(1 + SAMPLE_RECORDS, tab.grid_properties.row_count))
            cells = self._read_cells(settings, block, place) if tab.grid_properties.row_count > 1 else []
            records = [record for page in _pages(header, cells, 2, skip_empty=True) for record in page.records]
            yield Found(name=stream_name(tab.title, taken), settings={"tab": tab.title}, records=records)

    def close(self) -> None:
        self._transport.close()

    def _tabs(self, place: str) -> list[_Tab]:
        fields = "sheets.properties(title,sheetType,gridProperties(rowCount,columnCount))"
        body = self._ask(self._url.copy_merge_params({"fields": fields}), place)
        answer = _decode(body, _Spreadsheet, place)
        return [sheet.properties for sheet in answer.sheets if sheet.properties.sheet_type == "GRID"]

    def _find_tab(self, title: str, label: str) -> _Tab:
        tabs = self._tabs(label)
        found = next((tab for tab in tabs if tab.title == title), None)
        if found is None:
            there = ", ".join(repr(tab.title) for tab in tabs)
            raise SourceError(f"{label}: the spreadsheet has no tab {title!r}", f"Its tabs: {there}.")
        return found

    def _read_header(self, settings: GoogleSheetsStream, area: CellRange, row: int, place: str) -> list[str]:
        line = CellRange(area.first_column, row, area.last_column, row)
        # The names are texts, whatever the values are to be.
        rows = self._read_cells(msgspec.structs.replace(settings, values="formatted"), line, place)
        cells = [str(msgspec.json.decode(cell)) for cell in rows[0]] if rows else []
        return header_names(cells, f"{place}, row {row}", area.first_column)

    def _read_cells(self, settings: GoogleSheetsStream, area: CellRange, place: str) -> list[list[msgspec.Raw]]:
        """Return the rows of an area; empty cells at a row's end, and empty rows at its own, are left out."""
        params = {
            "ranges": _a1(settings.tab, area),
            "majorDimension": "ROWS",
            "valueRenderOption": "FORMATTED_VALUE" if settings.values == "formatted" else "UNFORMATTED_VALUE",
            "dateTimeRenderOption": "SERIAL_NUMBER" if settings.dates == "serial" else "FORMATTED_STRING",
            "prettyPrint": "false",
        }
        url = self._url.copy_with(path=f"{self._url.path}/values:batchGet").copy_merge_params(params)
        answer = _decode(self._ask(url, place), _Batch, place)
        if len(answer.value_ranges) != 1:
            raise SourceError(f"{place}: the answer has {len(answer.value_ranges)} ranges, one was asked for")
        found: list[list[msgspec.Raw]] = answer.value_ranges[0].values
        return found

    def _ask(self, url: httpx.URL, place: str) -> bytes:
        def send(request: httpx.Request) -> tuple[httpx.Response, bytes]:
            return self._transport.fetch(request, f"{place}: no access token", {400, 401, 403})

        rejected: str | None = None
        while True:
            try:
                token = self._account.token(send, rejected)
            except SourceUnavailableError:
                raise
            except SourceError as error:
                raise SourceError(f"{place}: {error.message}", error.hint) from None
            request = self._transport.build_request("GET", url, {"Authorization": f"Bearer {token}"}, None)
            response, body = self._transport.fetch(request, place, {400, 401, 403, 404})
            if response.status_code != 401 or rejected is not None:
                self._check(response, body, place)
                return body
            # Tokens can end early.
            rejected = token

    def _check(self, response: httpx.Response, body: bytes, place: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        if status == 404:
            raise SourceError(f"{place}: there is no such spreadsheet (answered 404)", "Check `spreadsheet`.")
        if status == 403 and b"SERVICE_DISABLED" in body:
            raise SourceError(
                f"{place}: the Google Sheets API is not enabled for the service account's project (answered 403)",
                "Enable it in the project's Google Cloud console.",
            )
        if status == 403:
            raise SourceError(
                f"{place}: the spreadsheet is not shared with the service account (answered 403)",
                f"Share it with {self._account.email}; a viewer is enough.",
            )
        if status == 401:
            raise SourceError(f"{place}: the access token was refused twice (answered 401)", "Check `credentials`.")
        raise SourceError(f"{place}: answered {status}", "Check `tab` and `range`.")


def _pages(
    header: Sequence[str], rows: Sequence[Sequence[msgspec.Raw]], first_row: int, *, skip_empty: bool
) -> Iterator[Page]:
    """Yield runs of rows without an empty one between."""
    leads = [(b"," if place else b"{") + _encode(name) + b":" for place, name in enumerate(header)]
    nothing = [b"null"] * len(header)
    page: Page | None = None
    for number, row in enumerate(rows, first_row):
        cells = [b"null" if (text := bytes(cell)) == b'""' else text for cell in row[: len(header)]]
        if skip_empty and cells.count(b"null") == len(cells):
            if page is not None:
                yield page
            page = None
            continue
        page = page or Page([], ordinal=number)
        cells += nothing[len(cells) :]
        page.records.append(b"".join([part for pair in zip(leads, cells, strict=True) for part in pair]) + b"}")
    if page is not None:
        yield page


def _check_columns(header: Sequence[str], wanted: Sequence[str], place: str) -> None:
    missing = [name for name in wanted if name.removeprefix("$.") not in header]
    if missing:
        raise SourceError(
            f"{place}: the header has no column {', '.join(map(repr, missing))}",
            f"It has {', '.join(map(repr, header))}. Was it renamed? Change the sheet, or the stream's settings.",
        )


def _a1(tab: str, area: CellRange) -> str:
    """Return the area as the API takes it; quotes in the tab's name are doubled."""
    last = f"{column_letters(area.last_column) if area.last_column else ''}{area.last_row or ''}"
    name = tab.replace("'", "''")
    return f"'{name}'!{column_letters(area.first_column)}{area.first_row}:{last}"


def _decode(body: bytes, shape: Any, place: str) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SourceError(f"{place}: the answer is not what the Sheets API gives", "Check api_url.") from None


def _parse_id(spreadsheet: str) -> str:
    match = _ADDRESS.fullmatch(spreadsheet.strip())
    found = match[1] if match else spreadsheet.strip()
    if not _ID.fullmatch(found):
        raise ConfigurationError(
            "`spreadsheet` is neither an id nor an address",
            "Copy it from the browser: https://docs.google.com/spreadsheets/d/ID/edit.",
        )
    return found
