"""Plans the streams and models that a project lacks for what discover found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from syncline.config import Project, Source, model_names
from syncline.connectors import check_settings
from syncline.discovery import texts
from syncline.discovery.finding import StreamFinding, wanted_of
from syncline.discovery.infer import Column, Nested, value_at
from syncline.discovery.models import Model, described_models, model_folder, parse_model, read_models
from syncline.discovery.names import entity_name, singular, unique_name
from syncline.discovery.yaml_list import append_items
from syncline.errors import ConfigurationError


@dataclass(slots=True)
class PlannedEntity:
    """A model for a stream: one that is there (`text` is None), or one to be written."""

    name: str
    stream: str
    text: str | None
    description: str | None = None


@dataclass(slots=True)
class Plan:
    """What is to be written, by path relative to the project: whole texts of files; and the entities by stream."""

    files: dict[Path, str] = field(default_factory=dict)
    entities: list[PlannedEntity] = field(default_factory=list)


def plan(project: Project, source: Source, findings: Sequence[StreamFinding]) -> Plan:
    """Return what to write so that each finding is a stream with a model; what is there is left as it is."""
    made = Plan()
    folder = model_folder(project) / source.name
    models = read_models(project)
    taken = model_names(project.root)
    shapes: dict[str, tuple[StreamFinding, Nested | None]] = {}
    for finding in wanted_of(findings):
        for entity, nested in _entities(source, finding, models, taken):
            made.entities.append(entity)
            if entity.text is not None:
                models[entity.name] = parse_model(entity.name, entity.text)
                shapes[entity.name] = (finding, nested)
                made.files[(folder / f"{entity.name}.sql").relative_to(project.root)] = entity.text
    targets = _targets(source, findings, models)
    described = described_models(project)
    descriptions = []
    for entity in made.entities:
        if entity.name in shapes and entity.name not in described:
            descriptions.append(_describe(source, entity, *shapes[entity.name], targets))
    if descriptions:
        file = (folder / f"_{source.name}_models.yml").relative_to(project.root)
        there = project.root / file
        text = there.read_text(encoding="utf-8") if there.exists() else ""
        made.files[file] = append_items(text, ["models"], descriptions, str(file))
    return made


def new_source(project: Project, name: str, connector: str, settings: Sequence[str]) -> Source:
    """Return a source that is to be declared, in a file of its own; `settings` are `name=value`, values in YAML.

    Raises ConfigurationError where there is such a source or a setting is not written so.
    """
    if name in project.sources:
        raise ConfigurationError(
            f"there is a source named {name!r} already, in {project.sources[name].file}",
            "Leave --connector and --set out to look at it.",
        )
    if entity_name("source", name) != name:
        raise ConfigurationError(f"{name!r} is no name for a source", "Use lowercase letters, digits and underscores.")
    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigurationError("--set takes NAME=VALUE", "Such as --set base_url=https://api.example.com.")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigurationError(
                f"--set {key}: its value is no valid YAML",
                f"Write it as in a sources file: '{key}={{a: \"${{NAME}}\"}}'.",
            ) from None
    file = (model_folder(project) / name / f"{name}.yml").relative_to(project.root)
    source = Source(name, f"raw_{name}", connector, given, {}, file)
    check_settings(source)
    return source


def declare(
    project: Project, source: Source, findings: Sequence[StreamFinding], *, is_new: bool = False
) -> tuple[Path, str]:
    """Return the file that declares the source, and its text with the streams that it lacks.

    A source that `is_new` is put into the file itself.
    """
    there = project.root / source.file
    text = there.read_text(encoding="utf-8") if there.exists() else ""
    if is_new:
        settings = {"connector": source.connector, **source.settings}
        text = append_items(text, ["sources"], [texts.source_text(source.name, settings)], str(source.file))
    missing = [finding for finding in wanted_of(findings) if finding.is_new]
    if missing:
        items = [texts.stream_text(source.name, f.name, f.settings, f.shape) for f in missing]
        text = append_items(text, ["sources", _place(text, source.name), "tables"], items, str(source.file))
    return source.file, text


def _place(text: str, name: str) -> int:
    declared = [item.get("name") for item in yaml.safe_load(text)["sources"]]
    return declared.index(name)


def _entities(
    source: Source, finding: StreamFinding, models: Mapping[str, Model], taken: set[str]
) -> Iterator[tuple[PlannedEntity, Nested | None]]:
    """Yield the entities of a stream, those that are there first; `taken` are names of models, and gets theirs."""
    shape, stream = finding.shape, finding.name
    there = [model for model in models.values() if (source.name, stream) in model.streams]
    for model in there:
        yield PlannedEntity(model.name, stream, None), None
    if shape is None or not shape.columns:
        return
    if not any(not model.lists for model in there):
        name = _entity_name(source, stream, taken)
        taken.add(name)
        yield PlannedEntity(name, stream, texts.model_text(source.name, stream, shape)), None
    for nested in shape.nested:
        if not any(nested.path in model.lists or _covers(model, nested.path) for model in there):
            name = _entity_name(source, f"{stream}_{nested.path}", taken)
            taken.add(name)
            yield PlannedEntity(name, stream, texts.nested_text(source.name, stream, shape, nested)), nested


def _covers(model: Model, path: str) -> bool:
    return any(column.is_of_record and column.path in (path, ".") for column in model.columns)


def _entity_name(source: Source, wanted: str, taken: set[str]) -> str:
    name = entity_name(source.name, wanted)
    return unique_name(entity_name(source.name, f"{source.name}_{name}"), taken) if name in taken else name


@dataclass(frozen=True, slots=True)
class _Target:
    """Where references to a stream lead: the entity, its key's column and type, and the keys of the sample."""

    entity: str
    column: str
    type: str
    keys: frozenset[str]


def _targets(source: Source, findings: Sequence[StreamFinding], models: Mapping[str, Model]) -> dict[str, _Target]:
    """Return the streams that a field may refer to, by their names in the singular."""
    targets = {}
    for finding in findings:
        shape = finding.shape
        if shape is None or len(shape.key) != 1:
            continue
        for model in models.values():
            mapped = next((c for c in model.columns if c.path == shape.key[0] and c.is_of_record and c.name), None)
            if (source.name, finding.name) in model.streams and not model.lists and mapped and mapped.name:
                keys = frozenset(str(value_at(record, shape.key[0])) for record in shape.records)
                targets[singular(finding.name)] = _Target(model.name, mapped.name, mapped.type, keys)
                break
    return targets


def _describe(
    source: Source, entity: PlannedEntity, finding: StreamFinding, nested: Nested | None, targets: Mapping[str, _Target]
) -> str:
    shape = finding.shape
    if shape is None:
        raise AssertionError("only what has a shape is described")
    label = f"{source.name}.{finding.name}"
    if nested is None:
        about = {column.name: f"The field {column.path}." for column in shape.columns}
        keys = [column.name for path in shape.key if (column := shape.column(path))]
        related = _related(entity.name, shape.columns, shape.records, targets)
        return texts.description_text(entity.name, f"One row for each record of {label}.", about, keys, related)
    own, columns, place = texts.nested_columns(finding.name, shape, nested)
    about = {column.name: f"The field {column.path} of the record." for column in own}
    about |= {} if nested.key else {place: "The element's place in the list, from 1."}
    about |= {column.name: f"The field {column.path} of the element." for column in columns}
    keys = [column.name for column in own] + [column.name for column in columns if column.path in nested.key]
    keys += [] if nested.key else [place]
    related = _related(entity.name, columns, nested.elements, targets)
    parent = targets.get(singular(finding.name))
    if parent is not None and len(own) == 1:
        related[own[0].name] = (parent.entity, parent.column)
    text = f"One row for each element of {nested.path} in the records of {label}."
    return texts.description_text(entity.name, text, about, keys if len(keys) > 1 else [], related)


def _related(
    entity: str, columns: Sequence[Column], records: Sequence[Any], targets: Mapping[str, _Target]
) -> dict[str, tuple[str, str]]:
    """Return the columns named after another stream whose values are all among the keys of its sample."""
    related = {}
    for column in columns:
        target = targets.get(column.name.removesuffix("_id")) if column.name.endswith("_id") else None
        if target is None or target.type != column.type or target.entity == entity:
            continue
        values = {str(value) for record in records if (value := value_at(record, column.path)) is not None}
        if values and values <= target.keys:
            related[column.name] = (target.entity, target.column)
    return related
