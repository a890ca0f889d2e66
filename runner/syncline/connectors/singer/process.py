"""Runs a Singer tap: its private files, its process group, its output by lines, its log."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError, SynclineError

LINE_BYTES = 256 << 20
"""Longest line of a tap: one message has to be held whole."""

_PIPE_BYTES = 1 << 20
_SHOWN_LINES = 5
_SHOWN_CHARACTERS = 300
_LOGGED_CHARACTERS = 2_000
_GRACE_SECONDS = 3.0

# Waits for the end of its input, which comes with the runner's, and then ends the process group $1 and removes $2.
_GUARD = 'cat > /dev/null; kill -s KILL -- "-$1" 2> /dev/null; rm -rf -- "$2"'

# All that a tap sees of the runner's environment: the secrets of other sources are none of its business.
_INHERITED = re.compile(r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|SSL_CERT_.*|(?i:.*_proxy)")
_CREDENTIALS = re.compile(r"(://)[^/\s@]+@")
# Records that a tap shows where it complains of them.
_RECORDS = re.compile(r"[\[{]\s*[\[{\"'].*")


@dataclass(frozen=True, slots=True)
class Program:
    """A tap as a command: `arguments` with the program first, run in `folder` with `environment`."""

    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    log: Callable[[str], None]


def find_program(
    command: str | list[str], folder: Path, environment: Mapping[str, str], log: Callable[[str], None]
) -> Program:
    """Return the program that `command` names, a path in it relative to `folder`.

    Its environment is `environment` over what every program needs (PATH, HOME, language, time zone, proxies).
    Raises ConfigurationError where there is no such program.
    """
    words = _words(command)
    if not words:
        raise ConfigurationError("`command` of the tap is no command", "Write it as in a shell, or as a list.")
    inherited = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    whole = {**inherited, **environment}
    path = str(folder / words[0]) if "/" in words[0] else words[0]
    found = shutil.which(path, path=whole.get("PATH"))
    if found is None:
        raise ConfigurationError(
            f"there is no program {words[0]!r} to run as a tap",
            "Install the tap in an environment of its own and check `command`; a relative path starts at the project.",
        )
    return Program((found, *words[1:]), folder, whole, log)


def shown_name(command: str | list[str]) -> str:
    """Return the program's name alone: arguments may be secret."""
    return Path(next(iter(_words(command)), "")).name


class TapRun:
    """One run of a tap. `files` are what it is given as `--name file`: private JSON files that go with the run.

    A context manager; on leaving it, and by `stop` from any thread, the whole process group is ended. Should the runner
    itself be killed, a guard ends the group and removes the files.
    """

    def __init__(self, program: Program, files: Mapping[str, Any], place: str, timeout: float, *flags: str) -> None:
        self._program = program
        self._place = place
        self._timeout = timeout
        self._last_lines: deque[str] = deque(maxlen=_SHOWN_LINES)
        self._folder = Path(tempfile.mkdtemp(prefix="syncline-tap-"))
        try:
            arguments = [*program.arguments, *flags]
            for name, content in files.items():
                arguments += [f"--{name}", str(self._write(name, content))]
            self._process = _start(program, arguments)
            try:
                self._guard = _start_guard(self._process.pid, self._folder)
            except BaseException:
                self._abandon()
                raise
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise SourceError(f"{place}: the tap cannot be started: {error.strerror}", "Check `command`.") from None
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._logging = threading.Thread(target=self._keep_log, name="tap log", daemon=True)
        self._logging.start()

    def __enter__(self) -> TapRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._logging.join(_GRACE_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._guard.kill()
        self._guard.communicate()

    def lines(self, *, is_text: bool = False) -> Iterator[list[bytes]]:
        """Yield the tap's output as it comes, in lists of whole lines, to its end. A text need not end with a line.

        Raises SourceUnavailableError where nothing came for `timeout` seconds, SourceError where the tap ended badly:
        with an exit code, by a signal, in the middle of a line.
        """
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        rest: list[bytes] = []
        held = 0
        while True:
            if not poll.poll(self._timeout * 1000):
                raise self._silent()
            block = os.read(output, _PIPE_BYTES)
            if not block:
                break
            whole, newline, tail = block.rpartition(b"\n")
            if newline:
                rest.append(whole)
                yield b"".join(rest).split(b"\n")
                rest, held = [tail], len(tail)
            else:
                rest.append(block)
                held += len(block)
                if held > LINE_BYTES:
                    raise SourceError(f"{self._place}: the tap wrote a line of over {LINE_BYTES} bytes")
        self._check_end(is_cut=any(rest) and not is_text)
        if any(rest):
            yield [b"".join(rest)]

    def stop(self) -> None:
        """End the tap and all that it has started; nothing happens where it has ended."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _abandon(self) -> None:
        """End a tap that nobody will read."""
        self.stop()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _write(self, name: str, content: Any) -> Path:
        file = self._folder / f"{name}.json"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(msgspec.json.encode(content))
        return file

    def _check_end(self, *, is_cut: bool) -> None:
        try:
            code = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise self._silent() from None
        self._logging.join(_GRACE_SECONDS)
        if code == 0 and not is_cut:
            return
        if code == 0:
            what = "ended in the middle of a line"
        elif code < 0:
            what = f"was killed by signal {-code}"
        else:
            what = f"ended with exit code {code}"
        raise SourceError(
            f"{self._place}: the tap {what}{self._said()}",
            "What it said is the tap's own; run its command by hand with the same configuration to see all of it.",
        )

    def _silent(self) -> SourceUnavailableError:
        return SourceUnavailableError(
            f"{self._place}: the tap wrote no message for {self._timeout:g} s{self._said()}",
            "If it is right that it takes so long, give the stream a longer `timeout`.",
        )

    def _said(self) -> str:
        lines = [_shorten(line) for line in self._last_lines]
        return "; its last lines: " + " | ".join(lines) if lines else ""

    def _keep_log(self) -> None:
        """Read what the tap says to the end, even where it cannot be kept: a full pipe would stop the tap."""
        assert self._process.stderr is not None
        is_kept = True
        with self._process.stderr as stream:
            rest = b""
            while block := stream.read(65536):
                *lines, rest = (rest + block).split(b"\n")
                rest = rest[:65536]
                for line in lines:
                    is_kept = self._note(line, is_kept=is_kept)
            self._note(rest, is_kept=is_kept)

    def _note(self, line: bytes, *, is_kept: bool) -> bool:
        text = _RECORDS.sub("{...}", _CREDENTIALS.sub(r"\1***@", line.decode("utf-8", "replace").strip()))
        if not text:
            return is_kept
        if text.strip("^~ "):
            self._last_lines.append(text)
        if is_kept:
            try:
                self._program.log(text[:_LOGGED_CHARACTERS])
            except SynclineError:
                return False
        return is_kept


def _start(program: Program, arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        cwd=program.folder,
        env=program.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pipesize=_PIPE_BYTES,
        start_new_session=True,
    )


def _start_guard(group: int, folder: Path) -> subprocess.Popen[bytes]:
    arguments = ["/bin/sh", "-c", _GUARD, "sh", str(group), str(folder)]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, cwd="/", start_new_session=True
    )


def _words(command: str | list[str]) -> list[str]:
    try:
        return shlex.split(command) if isinstance(command, str) else command
    except ValueError:
        return []


def _shorten(line: str) -> str:
    """Return the line's beginning, cut between words: a secret is masked later, and half of one would not be."""
    if len(line) <= _SHOWN_CHARACTERS:
        return line
    return line[:_SHOWN_CHARACTERS].rpartition(" ")[0] + " ..."
