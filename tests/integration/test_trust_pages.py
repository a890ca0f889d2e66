"""The how-to pages on several sources, history, references and changed models do, to the letter, what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from tests.projects import Bench

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"

_BLOCK = re.compile(r"(?:`([\w/.]+)`:\n\n)?^( *)```(\w+)\n(.*?)^ *```\n", re.MULTILINE | re.DOTALL)

_UNSTABLE = {
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "TIME",
    r"in \d+\.\d s": "in N s",
    # Streams load side by side.
    r"load \d+,": "load N,",
}


def told(output: str) -> list[str]:
    """The lines of an output without what no two runs have alike; in no order, since streams and entities have none."""
    for pattern, word in _UNSTABLE.items():
        output = re.sub(pattern, word, output)
    return sorted(line.rstrip() for line in output.splitlines() if line.strip())


def follow(bench: Bench, page: str) -> int:
    """Write each file of a page and run each command, in order; return how many commands printed what the page says."""
    for file in bench.models.iterdir():
        file.unlink()
    count = 0
    for file, _, language, indented in _BLOCK.findall((HOW_TO / page).read_text(encoding="utf-8")):
        content = dedent(indented)
        if file:
            bench.write(bench.root / file, content)
        if language != "console":
            continue
        for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            assert told(execute(bench, command)) == told(printed), command
            count += 1
    return count


def execute(bench: Bench, command: str) -> str:
    """Run a line of the page as a shell would, for Ada; return what it prints."""
    words = shlex.split(command)
    arguments = bench.command(*words[1:]) if words[0] == "syncline" else words
    environment = bench.environment | {"LOGNAME": "ada", "PGTZ": "UTC"}
    ended = subprocess.run(
        arguments, cwd=bench.root, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("page", "commands"),
    [("several-sources.md", 12), ("history.md", 8), ("external-references.md", 7), ("change-a-model.md", 9)],
)
def test_page(bench: Bench, page: str, commands: int) -> None:
    """Each command of the page, in a project with the page's files, prints what the page prints."""
    assert follow(bench, page) == commands
