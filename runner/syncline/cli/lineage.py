"""The command that answers where a value came from, and which column comes from which path."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from syncline.cli.context import command, connected, console, example
from syncline.values import (
    LONGEST,
    fields_of,
    moment,
    print_exact,
    printable,
    shown,
    shown_fields,
    value_of,
)

if TYPE_CHECKING:
    from syncline.config import Project, Stream


@command(epilog=example("syncline lineage partners a email"))
@click.argument("entity")
@click.argument("key", required=False)
@click.argument("field", required=False)
@click.option("--yaml", "as_yaml", is_flag=True, help="Without a key: print the mapping as dbt properties.")
def lineage(as_json: bool, entity: str, key: str | None, field: str | None, as_yaml: bool) -> None:
    """Show where the fields of a row came from, and why they have these values; without a key the whole mapping."""
    from syncline import db

    if as_yaml and (as_json or key is not None):
        raise click.UsageError("--yaml prints the mapping of a whole entity: without a key, and without --json")
    with connected() as (project, connection):
        if key is None:
            rows = db.call_exact(connection, "column_mapping", entity)
        else:
            rows = db.call_exact(connection, "lineage", entity, key, field)
    if key is None:
        _print_mapping(entity, rows, as_json=as_json, as_yaml=as_yaml)
        return
    for row in rows:
        row["sheet"] = _sheet(project, row)
    if as_json:
        fields = [{name: value for name, value in row.items() if name != "_key"} for row in rows]
        print_exact({"entity": entity, "_key": rows[0]["_key"], "fields": fields})
        return
    for row in rows:
        click.echo(printable(f"{entity} {row['_key']} {row['column_name']} = {shown(row['value'])}"))
        for name, text in _answers(row).items():
            if text:
                click.echo(f"    {name + ':':<11}{printable(text)}")


def _answers(row: dict[str, Any]) -> dict[str, str | None]:
    """Return what is to be said of one field, by what it answers."""
    override = value_of(row["override"]) or {}
    decided = f"by {override.get('set_by')} at {str(override.get('set_at'))[:19].replace('T', ' ')}"
    reason = f": {override['reason']}" if override.get("reason") else ""
    stood = f", in place of {shown(fields_of(row['override']).get('displaced'))}" if override else ""
    place = _place(row)
    is_heeded = row["rule"] == "override"
    is_said = not override or not is_heeded or override.get("source") == row["source"]
    run = f" by run {row['changed_by_run']}" if row["changed_by_run"] else ""
    changed = f"{shown(row['previous'])}, changed{run} at {moment(row['changed_at'])}"
    return {
        "rule": row["rule"],
        "override": f"{decided}{stood}{reason}" if override and is_heeded else None,
        "waits": f"{decided}: {override.get('source')} has no value{reason}" if override and not is_heeded else None,
        "from": place if is_said else None,
        "unheeded": None if is_said else place,
        "sources": shown_fields(row["candidates"]),
        "before": changed if row["changed_at"] else None,
        "errors": "; ".join(_misfit(error) for error in value_of(row["row_errors"]) or []) or None,
    }


def _misfit(error: dict[str, Any]) -> str:
    """Return why a value is not there."""
    where = ", ".join(filter(None, [error["stream"], f"row {error['row_number']}" if error["row_number"] else None]))
    value = (
        f" {printable(json.dumps(error['value'], ensure_ascii=False), LONGEST)}" if error["value"] is not None else ""
    )
    return f"{where}{value}: {error['message']} (`syncline errors show {error['error_id']}`)"


def _place(row: dict[str, Any]) -> str | None:
    """Return where a value stands in its source, and what brought it."""
    if row["stream"] is None:
        return row["path"] if row["rule"] == "derived" else None
    where: str = row["stream"]
    sheet = row["sheet"]
    if row["source"] and row["source"] != row["stream"].split(".")[0]:
        where = f"{row['source']}, {where}"
    if sheet:
        where += f", tab {sheet['tab']!r}, column {sheet['column']!r}, row {sheet['row']}"
    elif row["path"]:
        where += f", path {row['path']}" + (f", row {row['row_number']}" if row["row_number"] else "")
    if row["load_id"]:
        run = f", run {row['run_id']}" if row["run_id"] else ""
        where += f"; load {row['load_id']}{run}, {moment(row['loaded_at'])}"
    return where


def _sheet(project: Project, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return tab, column and row of a value that stands in a sheet of Google's: its records are counted by its rows."""
    stream = _stream(project, row["stream"])
    if stream is None or project.sources[stream.source].connector != "google_sheets" or not row["row_number"]:
        return None
    return {"tab": stream.settings.get("tab"), "column": row["path"], "row": row["row_number"]}


def _stream(project: Project, label: str | None) -> Stream | None:
    source, _, name = (label or "").partition(".")
    return project.sources[source].streams.get(name) if source in project.sources else None


def _print_mapping(entity: str, rows: list[dict[str, Any]], *, as_json: bool, as_yaml: bool) -> None:
    from syncline.report import rows_table

    if as_json:
        print_exact({"entity": entity, "columns": rows})
    elif as_yaml:
        click.echo(_as_properties(entity, rows), nl=False)
    else:
        headings = {
            "column_name": "column",
            "column_type": "type",
            "rule": "rule",
            "source": "source",
            "stream": "stream",
            "path": "path",
            "type": "typed as",
            "is_required": "required",
            "priority": "priority",
        }
        console().print(rows_table(rows, headings))


def _as_properties(entity: str, rows: list[dict[str, Any]]) -> str:
    """Return the mapping as YAML that dbt takes; a column of several sources lists them, the first asked first."""
    import yaml

    columns = []
    for name, group in groupby(rows, lambda row: row["column_name"]):
        meant = [
            {part: row[part] for part in ("rule", "source", "stream", "path", "type") if row[part] is not None}
            for row in group
        ]
        columns.append({"name": name, "config": {"meta": {"syncline": meant[0] if len(meant) == 1 else meant}}})
    text: str = yaml.safe_dump(
        {"models": [{"name": entity, "columns": columns}]}, sort_keys=False, allow_unicode=True, width=120
    )
    return text
