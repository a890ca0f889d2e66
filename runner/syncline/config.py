"""Reads the project: settings from the environment and `.env`, sources and streams from dbt's YAML files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from dotenv import dotenv_values

from syncline.errors import ConfigurationError
from syncline.masking import Mask

ENTITY_NAME_BYTES = 50
"""Longest entity or stream name, so that every derived name fits Postgres' 63 bytes."""

KEEP_LOG = timedelta(days=30)
KEEP_ERRORS = timedelta(days=30)
KEEP_CHANGES = timedelta(days=90)

Publish = Literal["together", "each"]

T = TypeVar("T")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DURATION = re.compile(r"(\d+)\s*([smhdy])")
_VERSIONED = re.compile(r"""\bmaterialized['"]?\s*[=:]\s*['"]versioned['"]""")
_VERSIONED_IN_YAML = re.compile(r"""^[^#\n]*\bmaterialized['"]?\s*:\s*['"]?versioned\b""", re.MULTILINE)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}


class Tombstone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which records of an increment say that their key is gone: the value at `path` equals `when`."""

    path: str
    when: Any = True


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every stream may say, whatever its connector."""

    key: str | list[str] | None = None
    active: bool = True
    append: bool = False
    hash_without: list[str] = []
    deleted: Tombstone | None = None
    full_every: str | None = None
    on_new_field: Literal["ignore", "warn", "fail"] = "ignore"
    redact: bool = False
    keep: int | Literal["all"] = 3
    max_delete_ratio: float = 0.3
    max_error_ratio: float = 0.1


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is an incident besides a run that failed; what is not set is not watched."""

    slower_than: str | None = None
    error_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    stale_after: str | dict[str, str] | None = None
    repeat_after: str | None = None

    def stale_bounds(self, entities: Iterable[str]) -> dict[str, timedelta]:
        """Return after how long each of the entities is stale that is watched."""
        if isinstance(self.stale_after, str):
            return dict.fromkeys(entities, parse_duration(self.stale_after))
        return {name: parse_duration(text) for name, text in (self.stale_after or {}).items()}


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as configured. `settings` are its connector's own, unresolved."""

    source: str
    name: str
    key: tuple[str, ...]
    common: StreamSettings
    settings: Mapping[str, Any]
    file: Path

    @property
    def label(self) -> str:
        return f"{self.source}.{self.name}"

    @property
    def full_every(self) -> timedelta | None:
        return parse_duration(self.common.full_every) if self.common.full_every else None


@dataclass(frozen=True, slots=True)
class Source:
    """One source as configured. `settings` are its connector's own, unresolved."""

    name: str
    schema: str
    connector: str
    settings: Mapping[str, Any]
    streams: Mapping[str, Stream]
    file: Path

    @property
    def active_streams(self) -> list[Stream]:
        return [stream for stream in self.streams.values() if stream.common.active]


@dataclass(frozen=True, slots=True)
class Project:
    """A project on disk: its folder, its sources and its environment (`.env` below the process' own).

    `publish` says whether a run publishes all its entities or none, or each that neither failed nor depends on one
    that did. `keep_log` is how long log events are kept, `keep_errors` row errors that are closed, `keep_changes` the
    changes of rows.
    """

    root: Path
    name: str
    publish: Publish
    sources: Mapping[str, Source]
    environment: Mapping[str, str] = field(repr=False)
    mask: Mask = field(repr=False)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    keep_log: timedelta = KEEP_LOG
    keep_errors: timedelta = KEEP_ERRORS
    keep_changes: timedelta = KEEP_CHANGES

    @property
    def database_url(self) -> str | None:
        return self.environment.get("DATABASE_URL") or None

    @property
    def target(self) -> str:
        return self.environment.get("SYNCLINE_TARGET") or "dev"

    @property
    def stream_labels(self) -> set[str]:
        return {stream.label for source in self.sources.values() for stream in source.streams.values()}

    def source(self, name: str) -> Source:
        """Return the source of that name; raises ConfigurationError with the known ones."""
        try:
            return self.sources[name]
        except KeyError:
            known = ", ".join(sorted(self.sources)) or "none"
            raise ConfigurationError(f"there is no source named {name!r}", f"Known sources: {known}.") from None


def read_project(root: Path) -> Project:
    """Read the project in `root`. Raises ConfigurationError with file, place and the known settings."""
    settings = _read_yaml(root / "dbt_project.yml")
    name = settings.get("name")
    if not isinstance(name, str):
        raise ConfigurationError(f"{root / 'dbt_project.yml'} has no `name`")
    sources: dict[str, Source] = {}
    for source in _read_sources(root):
        if source.name in sources:
            raise ConfigurationError(
                f"source {source.name!r} is declared twice, in {sources[source.name].file} and {source.file}",
                "Merge the two declarations.",
            )
        sources[source.name] = source
    environment = read_environment(root)
    ours = (settings.get("vars") or {}).get("syncline") or {}
    return Project(
        root=root,
        name=name,
        publish=_read_publish(ours),
        sources=sources,
        environment=environment,
        mask=Mask(_variables(sources.values()), environment),
        alerts=_read_alerts(ours.get("alerts") or {}, root),
        keep_log=parse_duration(str(ours["keep_log"])) if "keep_log" in ours else KEEP_LOG,
        keep_errors=parse_duration(str(ours["keep_errors"])) if "keep_errors" in ours else KEEP_ERRORS,
        keep_changes=parse_duration(str(ours["keep_changes"])) if "keep_changes" in ours else KEEP_CHANGES,
    )


def _variables(sources: Iterable[Source]) -> set[str]:
    """Return the names of the variables in the sources' settings."""
    declared = [[source.settings, [stream.settings for stream in source.streams.values()]] for source in sources]
    return set(_VARIABLE.findall(json.dumps(declared, default=str)))  # YAML has dates


def _read_publish(ours: Mapping[str, Any]) -> Publish:
    found = ours.get("publish", "together")
    if set(ours) - {"publish", "alerts", "keep_log", "keep_errors", "keep_changes"} or found not in (
        "together",
        "each",
    ):
        raise ConfigurationError(
            "dbt_project.yml: vars.syncline is not understood",
            "It may say `publish` (`together` or `each`), `alerts`, `keep_log`, `keep_errors` and `keep_changes`.",
        )
    return "each" if found == "each" else "together"


def _read_alerts(given: Any, root: Path) -> AlertSettings:
    place = "dbt_project.yml: vars.syncline.alerts"
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{place} is no mapping", "Write settings and values, such as slower_than: 30m.")
    alerts = convert(given, AlertSettings, place)
    for text in (alerts.slower_than, alerts.repeat_after):
        if text is not None:
            parse_duration(text)
    watched = set(alerts.stale_bounds([""]))
    if isinstance(alerts.stale_after, dict) and (unknown := sorted(watched - model_names(root))):
        raise ConfigurationError(
            f"{place}.stale_after: there is no model {unknown[0]!r}", "Name entities of the project."
        )
    return alerts


def model_names(root: Path) -> set[str]:
    """Return the names of the models in `root`, by their files."""
    folders = model_folders(root)
    return {file.stem for folder in folders for suffix in ("sql", "py") for file in folder.rglob(f"*.{suffix}")}


def entity_names(root: Path) -> set[str]:
    """Return the names of the models in `root` whose files say that they are entities.

    Where YAML says so of models, of which ones is dbt's to judge: then these are all models.
    """
    folders = model_folders(root)
    listed = [file for folder in folders for suffix in ("yml", "yaml") for file in folder.rglob(f"*.{suffix}")]
    if any(_VERSIONED_IN_YAML.search(_read_text(file)) for file in [root / "dbt_project.yml", *listed]):
        return model_names(root)
    models = (file for folder in folders for suffix in ("sql", "py") for file in folder.rglob(f"*.{suffix}"))
    return {file.stem for file in models if _VERSIONED.search(_read_text(file))}


def model_folders(root: Path) -> list[Path]:
    """Return the folders of the models in `root`, the one for new models first."""
    return [root / folder for folder in _read_yaml(root / "dbt_project.yml").get("model-paths") or ["models"]]


def read_model_yaml(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each YAML file in the models' folders, and what it says."""
    for folder in model_folders(root):
        for file in sorted([*folder.rglob("*.yml"), *folder.rglob("*.yaml")]):
            yield file, _read_yaml(file)


def read_environment(root: Path) -> dict[str, str]:
    """Return the process' environment over what `.env` in `root` sets."""
    dotenv = {name: value for name, value in dotenv_values(root / ".env").items() if value is not None}
    return {**dotenv, **os.environ}


def resolve(value: Any, environment: Mapping[str, str], place: str) -> Any:
    """Return `value` with each `${NAME}` in its strings replaced from `environment`.

    Raises ConfigurationError naming the variable and `place` where one is not set.
    """
    if isinstance(value, str):

        def lookup(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in environment:
                raise ConfigurationError(
                    f"{place} needs the variable {name}, which is not set",
                    f"Set {name} in the environment or in .env.",
                )
            return environment[name]

        return _VARIABLE.sub(lookup, value)
    if isinstance(value, Mapping):
        return {key: resolve(item, environment, place) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, environment, place) for item in value]
    return value


def parse_duration(text: str) -> timedelta:
    """Return the time span written as `90s`, `15m`, `6h`, `7d` or `1y`; raises ConfigurationError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ConfigurationError(f"{text!r} is no duration", "Write a number and a unit: 90s, 15m, 6h or 7d.")
    try:
        return timedelta(seconds=int(match.group(1)) * _UNITS[match.group(2)])
    except OverflowError:
        raise ConfigurationError(f"{text!r} is too long a duration", "Write less: 7d, 1y.") from None


@cache
def fields_of(shape: type[Any]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a struct, which msgspec takes a while to find."""
    return msgspec.structs.fields(shape)


def convert(settings: Mapping[str, Any], shape: type[T], place: str, also: Iterable[str] = ()) -> T:
    """Return `settings` as the struct `shape`; raises ConfigurationError with `place` and the known names.

    `also` are names that are known at the same place and taken out before.
    """
    known = fields_of(shape)  # type: ignore[arg-type]
    names = {item.encode_name for item in known}
    unknown = sorted(set(settings) - names)
    if unknown:
        raise ConfigurationError(
            f"{place}: unknown setting {unknown[0]!r}",
            f"Known here: {', '.join(sorted(names.union(also)))}.",
        )
    missing = [item.encode_name for item in known if item.required and item.encode_name not in settings]
    if missing:
        raise ConfigurationError(f"{place}: the setting {missing[0]!r} is missing")
    try:
        return msgspec.convert(settings, shape)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def _read_sources(root: Path) -> Iterator[Source]:
    for file, content in read_model_yaml(root):
        for declared in content.get("sources") or []:
            source = _read_source(declared, file.relative_to(root))
            if source is not None:
                yield source


def _read_source(declared: Mapping[str, Any], file: Path) -> Source | None:
    """Return the source that `declared` describes, or None for one that Syncline has no part in."""
    name = str(declared.get("name", ""))
    place = f"{file}: source {name!r}"
    meta = _meta(declared, place)
    if meta is None:
        return None
    settings = dict(meta)
    connector = settings.pop("connector", None)
    if not isinstance(connector, str):
        raise ConfigurationError(f"{place}: the setting 'connector' is missing", "Name one, such as http or file.")
    _check_name(name, place)
    streams = {}
    for table in declared.get("tables") or []:
        stream = _read_stream(name, table, file)
        streams[stream.name] = stream
    schema = str(declared.get("schema") or name)
    if schema != f"raw_{name}":
        raise ConfigurationError(f"{place}: its schema is {schema!r}", f"Write `schema: raw_{name}`.")
    return Source(name, schema, connector, settings, streams, file)


def _read_stream(source: str, table: Mapping[str, Any], file: Path) -> Stream:
    name = str(table.get("name", ""))
    place = f"{file}: stream {source}.{name}"
    _check_name(name, place)
    settings = dict(_meta(table, place) or {})
    names = {item.encode_name for item in fields_of(StreamSettings)}
    if settings.get("append"):
        settings.setdefault("key", "none")
    common = convert({key: settings.pop(key) for key in names & set(settings)}, StreamSettings, place)
    if common.full_every:
        parse_duration(common.full_every)
    for ratio in ("max_delete_ratio", "max_error_ratio"):
        if not 0 <= getattr(common, ratio) <= 1:
            raise ConfigurationError(f"{place}: {ratio} is a share between 0 and 1")
    if isinstance(common.keep, int) and common.keep < 1:
        raise ConfigurationError(f"{place}: keep is a number of loads, at least 1, or all")
    if common.append and common.deleted:
        raise ConfigurationError(f"{place} has append and deleted", "Choose one.")
    fields = [common.key] if isinstance(common.key, str) else common.key or []
    if set(common.hash_without) & set(fields):
        raise ConfigurationError(f"{place}: hash_without names the key", "The key is what tells records apart.")
    key = () if fields == ["none"] else tuple(fields)
    return Stream(source, name, key, common, settings, file)


def _meta(declared: Mapping[str, Any], place: str) -> Mapping[str, Any] | None:
    config = declared.get("config") or {}
    meta = (config.get("meta") or {}).get("syncline")
    if meta is not None and not isinstance(meta, Mapping):
        raise ConfigurationError(f"{place}: config.meta.syncline is no mapping")
    return meta


def _check_name(name: str, place: str) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name) or len(name.encode()) > ENTITY_NAME_BYTES:
        raise ConfigurationError(
            f"{place}: the name is not usable",
            f"Use lowercase letters, digits and underscores, at most {ENTITY_NAME_BYTES} bytes.",
        )


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 (a safe loader, in C)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is no valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: a mapping is expected at the top level")
    return content
