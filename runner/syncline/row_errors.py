"""One row error in full: what is known of it, its record where that may be shown, and its place in the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from syncline import db
from syncline.config import Project, Stream, model_folders


def read_error(connection: db.Connection, project: Project, error_id: int) -> dict[str, Any]:
    """Return all that is known of a row error; raises ConfigurationError where there is none.

    `record` is the rejected record, or the live one that a model did not take, up to 1 MiB as text; None where it was
    not kept, is gone, or may not be shown: its stream is redacted, or nobody can tell. `model` is the file and line
    that reads the value.
    """
    found: dict[str, Any] = db.call_value(connection, "row_error", error_id)
    stream = _stream(project, found["stream"])
    found["is_redacted"] = stream is not None and stream.common.redact
    # Of a stream that is not declared nobody can tell whether it may be shown.
    is_shown = stream is not None and not found["is_redacted"]
    record = db.call_value(connection, "rejected_record", error_id) if is_shown else None
    found["record"] = None if record is None else bytes(record).decode("utf-8", "replace")
    found["model"] = model_place(project.root, found["entity"], found["path"]) if found["entity"] else None
    is_gone = (found["stream"] and stream is None) or (found["entity"] and found["model"] is None)
    found["is_replayable"] = found["is_replayable"] and not is_gone
    return found


def _stream(project: Project, label: str | None) -> Stream | None:
    streams = {stream.label: stream for source in project.sources.values() for stream in source.streams.values()}
    return streams.get(label or "")


def model_place(root: Path, entity: str, path: str | None) -> str | None:
    """Return the file of an entity's model, below `root`, and the line where it first reads the path."""
    for folder in model_folders(root):
        for file in sorted(folder.rglob(f"{entity}.sql")):
            place = file.relative_to(root).as_posix()
            wanted = re.compile(rf"""\btyped\(\s*['"]{re.escape(path)}['"]""") if path else None
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if wanted is not None and wanted.search(line):
                    return f"{place}:{number}"
            return place
    return None
