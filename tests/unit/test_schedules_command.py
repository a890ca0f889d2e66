"""The commands below `syncline schedule`: each has help with an example, and is documented with its options."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from syncline.cli import main
from syncline.cli.schedules import schedule

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_all_commands_are_there() -> None:
    """The group holds the commands that its page promises."""
    assert set(schedule.commands) == {"list", "create", "set", "pause", "resume", "delete", "trigger", "sync"}


@pytest.mark.parametrize("name", sorted(schedule.commands))
def test_help_has_an_example(name: str) -> None:
    """`schedule COMMAND --help` shows `--json` and an example that names the command; it needs no project."""
    result = CliRunner().invoke(main, ["schedule", name, "--help"])
    assert result.exit_code == 0, result.output
    summary, example = result.output.split("Example:")
    assert "--json" in summary
    assert f"syncline schedule {name}" in example


@pytest.mark.parametrize("name", sorted(schedule.commands))
def test_options_are_documented(name: str) -> None:
    """Each option, its opposite too, is named below the heading `schedule` of commands.md."""
    _, text = PAGE.read_text(encoding="utf-8").split("\n### schedule\n")
    text = re.split(r"^##", text, flags=re.MULTILINE)[0]
    assert f"`schedule {name}" in text
    options = [parameter for parameter in schedule.commands[name].params if isinstance(parameter, click.Option)]
    names = {each for option in options for each in [*option.opts, *option.secondary_opts]} - {"--json"}
    assert [each for each in sorted(names) if not re.search(rf"`[^`]*{each}\b", text)] == []
