"""Does what a page says, command by command, and compares what is printed with what the page shows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

SKIPPED = ("pip install", "syncline init", "cd ")
"""What a test has done before: there is a project already."""

_VARYING = {
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00(:00)?)?": "TIME",
    r"\b\d+\.\d s\b": "SECONDS",
    # Streams load side by side.
    r"\bload \d+": "LOAD",
    r"-{3,}": "RULE",
    r"\s+": " ",
}


class Walk:
    """A page's console blocks, done in a project's folder; ends the servers that it starts."""

    def __init__(self, page: Path, root: Path, environment: dict[str, str]) -> None:
        self.page, self.root = page.read_text(encoding="utf-8"), root
        self.environment = environment | {"COLUMNS": "250", "LOGNAME": "ada"}
        self.servers: list[subprocess.Popen[str]] = []
        self.done: list[str] = []

    def go(self) -> None:
        """Do all that the page shows; a block of variables for the server it started goes into .env."""
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```", self.page, re.MULTILINE | re.DOTALL):
            if language == "console":
                for command, shown in _commands(text):
                    self.do(command, shown)
            elif language == "text" and "=http://127.0.0.1:" in text:
                (self.root / ".env").write_text(re.sub(r"http://127\.0\.0\.1:\d+", self.address, text))

    def do(self, command: str, shown: list[str]) -> None:
        if command.startswith(SKIPPED):
            return
        if "server.py" in command:
            self.serve(command)
            return
        ended = subprocess.run(
            ["sh", "-c", command],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 0, f"{command}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        printed = {_plain(line) for line in [*ended.stdout.splitlines(), *ended.stderr.splitlines()]}
        missing = [line for line in shown if _plain(line) not in printed]
        assert not missing, f"{command}: the page shows {missing}\n{ended.stdout}\n{ended.stderr}"
        self.done.append(command)

    def serve(self, command: str) -> None:
        """Start the server on a free port, whatever the page says."""
        command = f"exec {re.sub(r'--port [0-9]+', '--port 0', command)}"
        server = subprocess.Popen(
            ["sh", "-c", command], cwd=self.root, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        self.servers.append(server)
        assert server.stdout
        self.address = server.stdout.readline().strip().removeprefix("listening on ")

    def stop(self) -> None:
        for server in self.servers:
            server.terminate()
            server.communicate(timeout=10)


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with the lines shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command.partition("  #")[0], [line for line in shown if line.strip() not in ("", "...")]


def _plain(line: str) -> str:
    """Return the line without what differs from run to run, and with one blank where there are some."""
    for pattern, word in _VARYING.items():
        line = re.sub(pattern, word, line)
    return re.sub(r"(TIME) \d+\.\d\b", r"\1 SECONDS", line).strip()
