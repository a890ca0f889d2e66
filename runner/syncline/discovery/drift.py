"""Compares what a live source has now with the streams that are declared and the models that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from syncline.config import Project, Source
from syncline.discovery.finding import StreamFinding, wanted_of
from syncline.discovery.infer import Shape, family_of, fits, value_at
from syncline.discovery.models import Mapped, Model, read_models


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. `change` is new_stream, gone_stream, new_field, gone_field or type.

    For `type`, `found` is what the source has and `declared` what the model takes it as.
    """

    stream: str
    change: str
    path: str | None = None
    found: str | None = None
    declared: str | None = None


def compare(project: Project, source: Source, findings: Sequence[StreamFinding]) -> list[Drift]:
    """Return the differences between what was found and what the project has, in the order of the findings."""
    models = read_models(project)
    drifts = []
    for finding in wanted_of(findings):
        if finding.is_gone:
            drifts.append(Drift(finding.name, "gone_stream"))
        elif finding.is_new:
            drifts.append(Drift(finding.name, "new_stream"))
        elif finding.shape is not None:
            reading = [model for model in models.values() if (source.name, finding.name) in model.streams]
            drifts += _compare_fields(finding.name, finding.shape, reading) if reading else []
    return drifts


def _compare_fields(stream: str, shape: Shape, models: Sequence[Model]) -> Iterator[Drift]:
    mapped = {column.path: column for model in models for column in model.columns if column.is_of_record}
    lists = {path for model in models for path in model.lists}
    found = {column.path: column.type for column in shape.columns} | {nested.path: "jsonb" for nested in shape.nested}
    for path, kind in found.items():
        if not _is_read(path, mapped, lists):
            yield Drift(stream, "new_field", path, found=kind)
    for path, column in mapped.items():
        if path == ".":
            continue
        if not _is_there(path, found, shape):
            yield Drift(stream, "gone_field", path, declared=column.type)
        elif path in found and not _takes(column, found[path], shape):
            yield Drift(stream, "type", path, found=found[path], declared=column.type)


def _is_read(path: str, mapped: Mapping[str, Mapped], lists: set[str]) -> bool:
    parts = path.split(".")
    above = {".".join(parts[:length]) for length in range(1, len(parts) + 1)} | {"."}
    return bool(above & set(mapped) or above & lists) or any(read.startswith(f"{path}.") for read in mapped)


def _is_there(path: str, found: Mapping[str, str], shape: Shape) -> bool:
    """Return whether a path leads somewhere: one into a list, or into what is kept whole, is taken to."""
    parts = path.split(".")
    if any(".".join(parts[:length]) in found for length in range(1, len(parts) + 1)):
        return True
    is_object = any(name.startswith(f"{path}.") for name in found)
    return is_object or any(value_at(record, path) is not None for record in shape.records)


def _takes(column: Mapped, found: str, shape: Shape) -> bool:
    family = family_of(column.type)
    if column.has_format or (family == family_of(found) and family != "number"):
        return True
    values = [value for record in shape.records if (value := value_at(record, column.path)) is not None]
    if not values:
        return family in ("text", "jsonb", family_of(found)) or not shape.records
    return all(fits(value, column.type) for value in values)
