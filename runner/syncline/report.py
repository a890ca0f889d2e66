"""Shows runs to people: live on a terminal, in plain lines elsewhere, and a table at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from syncline.preview import Candidate, Summary
from syncline.values import fields_of, printable, shown


class PlainWatcher:
    """Writes one line for each thing that happened."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> PlainWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waiting(self, blocking: list[int]) -> None:
        self._line(f"waiting for run {', '.join(map(str, blocking)) or 'another run'} of the same source")

    def step(self, name: str) -> None:
        self._line(name)

    def stream_progress(self, label: str, records: int) -> None:
        pass

    def stream_done(self, label: str, load: Mapping[str, Any]) -> None:
        self._line(f"  {label}: {describe_load(load)}")

    def entities(self, names: list[str]) -> None:
        pass

    def entity(self, name: str, status: str) -> None:
        if status != "building":
            self._line(f"  {name}: {status}")

    def note(self, text: str) -> None:
        self._line(text)

    def event(self, level: str, name: str, detail: Mapping[str, Any]) -> None:
        pass

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class SilentWatcher(PlainWatcher):
    """Says nothing: the result is all."""

    def _line(self, text: str) -> None:
        pass


class LiveWatcher:
    """Keeps a small table of streams and entities up to date on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._streams: dict[str, str] = {}
        self._entities: dict[str, str] = {}
        self._step = "starting"
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> LiveWatcher:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def waiting(self, blocking: list[int]) -> None:
        self._step = f"waiting for run {', '.join(map(str, blocking)) or 'another run'} of the same source"

    def step(self, name: str) -> None:
        self._step = name

    def stream_progress(self, label: str, records: int) -> None:
        with self._lock:
            self._streams[label] = f"{records:,} records"

    def stream_done(self, label: str, load: Mapping[str, Any]) -> None:
        with self._lock:
            self._streams[label] = f"[green]✓[/] {describe_load(load)}"

    def entities(self, names: list[str]) -> None:
        with self._lock:
            self._entities = dict.fromkeys(names, "[dim]waits[/]")

    def entity(self, name: str, status: str) -> None:
        marks = {"building": "[yellow]building[/]", "built": "[green]✓[/] built", "failed": "[red]✗ failed[/]"}
        with self._lock:
            self._entities[name] = marks[status]

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def event(self, level: str, name: str, detail: Mapping[str, Any]) -> None:
        pass

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(self._step, style="bold"))
        with self._lock:
            shown = self._entities if self._entities else self._streams
            for name, status in sorted(shown.items()):
                table.add_row(f"  {name}", status)
        return table


def describe_load(load: Mapping[str, Any]) -> str:
    if load["kind"] == "full" and not load["records_read"] and load["live_records"]:
        return "unchanged since the last load"
    parts = [f"{load['records_read']:,} read"]
    changed = [
        f"{load[f'records_{name}']:,} {name}"
        for name in ("new", "changed", "gone", "rejected")
        if load[f"records_{name}"]
    ]
    text = ", ".join(parts + (changed or ["nothing new"]))
    if load["kind"] == "full" and not load["is_closing"]:
        text += " (closed nothing: a record's key could not be read)"
    return text


def print_run(console: Console, report: Mapping[str, Any]) -> None:
    """Print a run's table and the one line on what to try next."""
    if report["entities"]:
        counts = ["inserted", "updated", "deleted", "unchanged", "rejected"]
        counts += ["conflicts"] if _conflicts(report) else []
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("entity")
        for name in counts:
            table.add_column(name, justify="right")
        table.add_column("version", justify="right")
        table.add_column("state")
        for name, entity in sorted(report["entities"].items()):
            cells = [f"{entity[key]:,}" if entity[key] else "[dim]0[/]" for key in counts]
            table.add_row(name, *cells, f"v{entity['version']}", _state(entity["state"]))
        console.print(table)
    seconds = (report["duration_ms"] or 0) / 1000
    done = report["status"] == "succeeded"
    mark = "[green]succeeded[/]" if done else f"[red]{report['status']}[/]"
    console.print(f"run {report['run_id']} {mark} in {seconds:.1f} s", highlight=False)
    if done:
        console.print(f"[dim]next: {_next_step(report)}[/]", highlight=False)


def _conflicts(report: Mapping[str, Any]) -> int:
    """Return how many fields the run found on which sources disagree as they did not before."""
    return sum(entity["conflicts"] for entity in report["entities"].values())


def _state(state: str) -> str:
    words = {"current": "[green]published[/]", "unchanged": "[dim]unchanged[/]", "failed": "not published"}
    return words.get(state, state)


def print_preview(console: Console, candidates: Sequence[Candidate], report: Mapping[str, Any]) -> None:
    """Print what a run that published nothing would change, entity by entity."""
    if report.get("kind") == "trial":
        console.print("[bold]what these records would change:[/]", highlight=False)
    elif report["errors"] and candidates:
        console.print("[bold]what the candidates would have changed:[/]", highlight=False)
    elif candidates:
        console.print("[bold]what `syncline publish` would change:[/]", highlight=False)
    for candidate in candidates:
        told = [describe_counts(candidate.counts) or "no row changes"]
        for what, count in (("row error", candidate.row_errors), ("new conflict", candidate.conflicts)):
            told += [f"{count:,} {what}{'s' if count > 1 else ''}"] if count else []
        console.print(f"[bold]{candidate.entity}[/]: {', '.join(told)}", highlight=False, soft_wrap=True)
        if candidate.summary is not None:
            print_changes(console, candidate.summary, candidate.changes)


def print_changes(console: Console, summary: Summary, changes: Iterable[Mapping[str, Any]]) -> None:
    """Print rows by field, and of each kind how many more there are."""
    for heading, columns in (("new columns", summary.columns_added), ("columns gone", summary.columns_dropped)):
        if columns:
            console.print(f"  {heading}: {', '.join(columns)}", highlight=False, markup=False, soft_wrap=True)
    left = dict(summary.counts)
    for change in changes:
        left[change["change"]] -= 1
        console.print(_change(change, summary.columns), highlight=False, soft_wrap=True)
    more = describe_counts(left)
    if more:
        console.print(f"[dim]… and {more}[/]", highlight=False)


def describe_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count > 0)


_MARKS = {"inserted": ("+", "green"), "deleted": ("-", "red"), "updated": ("~", "yellow")}


def _change(row: Mapping[str, Any], columns: Sequence[str]) -> Text:
    """Return the lines of a changed row: its key, what else it was matched by, and its fields."""
    kind = row["change"]
    mark, style = _MARKS[kind]
    text = Text.assemble((mark, style), " ", printable(row["_key"]))
    old, new, identity = (
        {field: shown(value) for field, value in fields_of(row[name]).items()} for name in ("old", "new", "unique_key")
    )
    if kind == "updated":
        matched = [f"{name} {value}" for name, value in identity.items() if value.strip('"') != row["_key"]]
        text.append(f"  ({', '.join(matched)})" if matched else "", "dim")
        if not new:
            text.append("\n    the same values, written otherwise", "dim")
    for name in columns:
        before, after = old.get(name, "null"), new.get(name, "null")
        if kind == "updated" and name in new:
            text.append(f"\n    {name}: ")
            text.append_text(Text.assemble((before, "red"), " → ", (after, "green")))
        elif kind != "updated" and name != "_key" and (before, after) != ("null", "null"):
            text.append(f"\n    {name}: {after if kind == 'inserted' else before}")
    return text


def _next_step(report: Mapping[str, Any]) -> str:
    if report.get("kind") == "trial":
        return "`syncline run --dry-run` for all records: a trial is never published"
    entities = report["entities"]
    waiting = [name for name, entity in entities.items() if entity["state"] == "checked"]
    changed = [name for name, entity in entities.items() if entity["updated"] or entity["deleted"]]
    steps = []
    if waiting and report.get("kind") == "dry run":
        steps.append("`syncline publish` publishes exactly this")
    elif waiting:
        steps.append(f"`syncline diff {min(waiting)}` shows what would change, `syncline publish` publishes it")
    if report["row_errors"]:
        steps.append(f"`syncline errors` shows {_the(report['row_errors'], 'value')} that did not fit")
    if _conflicts(report) and not waiting:
        steps.append(f"`syncline conflicts` shows {_the(_conflicts(report), 'field')} on which sources disagree")
    if not steps and changed:
        steps.append(f"`syncline diff {min(changed)}` shows what changed, `syncline rollback` takes it back")
    elif not steps and entities:
        steps.append("`syncline psql` to look at the data, `syncline status` for all entities")
    return ", ".join(steps) or "`syncline status` shows what there is"


def _the(count: int, thing: str) -> str:
    return f"the {thing}" if count == 1 else f"the {count:,} {thing}s"


def rows_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """Return rows as a table; `columns` maps their fields to headings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns.values():
        table.add_column(heading)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    return table


def _cell(value: Any) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "")
    if hasattr(value, "strftime"):
        return Text(value.strftime("%Y-%m-%d %H:%M:%S"))
    # A value is shown on one line, whatever it holds.
    return Text(" ".join(printable(str(value)).split()))
