"""The documentation names all there is: commands, options, settings, functions; its links and its YAML hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from syncline.cli import main
from syncline.config import AlertSettings, StreamSettings, read_project
from syncline.connectors import check_settings
from syncline.connectors.dlt.connector import DltSource, DltStream
from syncline.connectors.file.connector import FileSource, FileStream
from syncline.connectors.google_sheets.connector import GoogleSheetsSource, GoogleSheetsStream
from syncline.connectors.http.connector import HttpSource, HttpStream
from syncline.connectors.singer.connector import SingerSource, SingerStream
from syncline.migrate import _NAME as MIGRATION_NAME

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "CHANGELOG.md", *(ROOT / "examples").rglob("*.md")])
SQL = sorted((ROOT / "sql").rglob("*.sql"))


def read_reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")


def list_commands() -> list[click.Command]:
    context = click.Context(main)
    return [command for name in main.list_commands(context) if (command := main.get_command(context, name))]


def section(page: str, title: str) -> str:
    """The text below a heading, up to the next one of its kind or above."""
    match = re.search(rf"^### {re.escape(title)}\n(.*?)(?=^##[# ]|\Z)", page, re.MULTILINE | re.DOTALL)
    assert match, f"there is no heading for {title}"
    return match.group(1)


@pytest.mark.parametrize("command", list_commands(), ids=lambda command: str(command.name))
def test_every_command_and_option_is_documented(command: click.Command) -> None:
    """Each command has a heading in commands.md, and each of its options is named below it."""
    text = section(read_reference("commands.md"), str(command.name))
    commands = [command, *getattr(command, "commands", {}).values()]
    options = [parameter for one in commands for parameter in one.params if isinstance(parameter, click.Option)]
    options = [option for option in options if not option.hidden]
    names = {max(option.opts, key=len) for option in options} - {"--json", "--help"}
    assert [name for name in sorted(names) if not re.search(rf"{name}\b", text)] == []


def settings_of(shape: Any, seen: set[type] | None = None) -> Iterator[str]:
    """The names of a struct's fields and of all structs in them, tags included."""
    seen = set() if seen is None else seen
    info = msgspec.inspect.type_info(shape)
    todo: list[Any] = [info]
    while todo:
        item = todo.pop()
        if isinstance(item, msgspec.inspect.StructType):
            if item.cls in seen:
                continue
            seen.add(item.cls)
            if item.tag is not None:
                yield str(item.tag)
            for field in item.fields:
                yield field.encode_name
                todo.append(field.type)
        elif isinstance(item, msgspec.inspect.UnionType):
            todo.extend(item.types)
        elif isinstance(item, msgspec.inspect.ListType):
            todo.append(item.item_type)
        elif isinstance(item, msgspec.inspect.Metadata):
            todo.append(item.type)


@pytest.mark.parametrize(
    "shape",
    [
        StreamSettings,
        AlertSettings,
        HttpSource,
        HttpStream,
        FileSource,
        FileStream,
        GoogleSheetsSource,
        GoogleSheetsStream,
        SingerSource,
        SingerStream,
        DltSource,
        DltStream,
    ],
)
def test_every_setting_is_documented(shape: type[msgspec.Struct]) -> None:
    """Each setting of streams and connectors, nested ones included, is named in settings.md."""
    page = read_reference("settings.md")
    names = set(settings_of(shape))
    assert len(names) >= len(msgspec.structs.fields(shape))
    assert [name for name in sorted(names) if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", page)] == []


def test_yaml_of_the_settings_is_accepted(tmp_path: Path) -> None:
    """Each YAML example of settings.md is a sources file that Syncline takes."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", read_reference("settings.md"), re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        project = tmp_path / str(number)
        (project / "models").mkdir(parents=True)
        (project / "dbt_project.yml").write_text("name: documented\n", encoding="utf-8")
        (project / "models" / "sources.yml").write_text(block, encoding="utf-8")
        sources = read_project(project).sources
        assert sources, block
        for source in sources.values():
            check_settings(source)


def test_every_function_and_view_is_documented() -> None:
    """Each function and view of the control schema is named in sql.md, and sql.md names no other as its own."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "sql" / "functions").glob("*.sql"))
    names = set(re.findall(r"create or replace (?:function|view) syncline\.(\w+)", text))
    page = read_reference("sql.md")
    documented = set(re.findall(r"^(?:### |\| `)([a-z_]+)(?:`|$)", page, re.MULTILINE))
    assert sorted(names - documented) == []
    headings = set(re.findall(r"^### ([a-z_]+)$", page, re.MULTILINE))
    assert sorted(headings - names) == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    """Each link to a file, and to a heading in it, leads somewhere."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


def test_migrations_are_named_by_the_pattern() -> None:
    """Migrations are numbered from 1 without a gap; a name that does not fit would never be applied."""
    files = sorted((ROOT / "sql" / "migrations").glob("*"))
    assert [file.name for file in files if not MIGRATION_NAME.fullmatch(file.name)] == []
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))


@pytest.mark.parametrize("file", SQL, ids=lambda file: file.name)
def test_every_table_and_function_has_a_comment(file: Path) -> None:
    """Each table, view and function made in a file is explained in it."""
    text = file.read_text(encoding="utf-8")
    made = set(re.findall(r"^create (?:or replace )?(table|view|function) syncline\.(\w+)", text, re.MULTILINE))
    explained = set(re.findall(r"^comment on (table|view|function) syncline\.(\w+)", text, re.MULTILINE))
    assert made or file.parent.name == "migrations"
    assert sorted(made - explained) == []
