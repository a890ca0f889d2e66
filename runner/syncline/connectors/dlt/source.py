"""Opens dlt sources and resources without a pipeline: what they yield, and the state that they keep."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError, SynclineError

State = dict[str, Any]

_TEMPORARY = frozenset({"ConnectionError", "Timeout", "TimeoutError", "TransportError", "OperationalError"})


class SourceFunction:
    """What `package.module:function` names: a dlt source or resource, or a function that gives one.

    Modules are looked for in `root` first.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], root: Path) -> None:
        self._name = name
        self._arguments = arguments
        self._root = root

    def open(self, state: State) -> Any:
        """Return a dlt source of its own, made anew, with `state` to be read and written by its code.

        Raises ConfigurationError where there is no such thing or dlt misses a setting, SourceError where the code
        fails.
        """
        _prepare_dlt()
        with self.named_errors(self._name), _injected(_contexts(None, state)):
            found = self._find()
            from dlt.extract import DltResource, DltSource

            if isinstance(found, DltSource | DltResource) and not self._arguments:
                made = found.clone() if isinstance(found, DltSource) else found.with_name(found.name)
            else:
                made = found(**self._arguments)
            if isinstance(made, DltResource):
                return _single(made)
        if isinstance(made, DltSource):
            return made
        raise ConfigurationError(
            f"{self._name} gives {type(made).__name__}, which is no dlt source or resource",
            "Decorate the function with @dlt.source or @dlt.resource.",
        )

    def _find(self) -> Any:
        module, _, path = self._name.partition(":")
        if not module or not path:
            raise ConfigurationError(f"{self._name!r} names no function", "Write `resource: package.module:function`.")
        if str(self._root) not in sys.path:
            sys.path.insert(0, str(self._root))
        try:
            found: Any = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise ConfigurationError(
                f"there is no module {error.name}", "Check `resource`; modules are looked for in the project first."
            ) from None
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None:
            raise ConfigurationError(f"{module} has no {path}", "Check `resource`.")
        return found

    @contextmanager
    def named_errors(self, place: str) -> Iterator[None]:
        """Turn what the source's code raises into errors that say where, and show no value."""
        try:
            yield
        except (SynclineError, GeneratorExit):
            raise
        except Exception as error:
            raise self._named(place, error) from None

    def _named(self, place: str, error: BaseException) -> SynclineError:
        while type(error).__module__.startswith("dlt.extract") and error.__cause__ is not None:
            error = error.__cause__
        kind = type(error).__name__
        if kind == "ConfigFieldMissingException":
            return ConfigurationError(
                f"{place}: dlt has no value for {', '.join(error.fields)}",  # type: ignore[attr-defined]
                "Give it under `arguments`, or where dlt looks for it.",
            )
        message = f"{place}: {kind}{self._where(error.__traceback__)}"
        if _is_temporary(error):
            return SourceUnavailableError(message, "The source may be down or busy: try again later.")
        return SourceError(message, "Its message may hold values, so it is not shown: run the code by hand to see it.")

    def _where(self, trace: TracebackType | None) -> str:
        """Return the innermost place in the project's own code, or in the module that was named."""
        for frame, line in reversed(list(traceback.walk_tb(trace))):
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(self._root) and "site-packages" not in file.parts:
                return f" in {file.relative_to(self._root)}, line {line}"
        module = self._name.partition(":")[0]
        for frame, line in reversed(list(traceback.walk_tb(trace))):
            if frame.f_globals.get("__name__", "").startswith(module):
                return f" in {frame.f_globals['__name__']}, line {line}"
        return ""


def select(source: Any, name: str, place: str) -> Any:
    """Return the source's resource of that name, the only one selected; raises ConfigurationError."""
    if name not in source.resources:
        known = ", ".join(sorted(source.resources)) or "none"
        raise ConfigurationError(f"{place}: the source has no resource {name!r}", f"Its resources: {known}.")
    source.resources.select(name)
    return source.resources[name]


def iterate(source: Any, state: State) -> Iterator[Any]:
    """Yield what the selected resources yield, as it comes; `state` is written to as they go on."""
    from dlt.extract.pipe_iterator import ManagedPipeIterator

    contexts = _contexts(source, state)
    with _injected(contexts):
        items = ManagedPipeIterator.from_pipes(source.resources.selected_pipes)
    items.set_context(contexts)
    with closing(items):
        for item in items:
            yield item.item


def encode_state(state: State) -> Any:
    """Return the state as JSON; dates and decimals in it are marked as dlt marks them."""
    from dlt.common import json

    return json.loads(json.typed_dumps(state))


def decode_state(content: Any) -> State:
    """Return the state that `encode_state` was given."""
    from dlt.common import json

    state: State = json.typed_loads(json.dumps(content))
    return state


def incremental_of(resource: Any) -> Any:
    """Return the resource's incremental, None where it has none: from its hints, its arguments or their defaults."""
    from dlt.extract.incremental import Incremental

    hint = resource.incremental
    for given in (getattr(hint, "incremental", hint), resource._hints.get("incremental")):
        if isinstance(given, Incremental):
            return given
    if hint is None:
        return None
    arguments = resource.explicit_args if resource.args_bound else {}
    for parameter in inspect.signature(inspect.unwrap(resource._pipe.gen), follow_wrapped=False).parameters.values():
        given = arguments.get(parameter.name, parameter.default)
        if isinstance(given, Incremental):
            return given
    return None


def limit_range(resource: Any, since: str | None, until: str | None, place: str) -> None:
    """Have the resource read what lies between `since` and `until`, both included.

    Raises ConfigurationError where it has no incremental, or where what was written is no value of its cursor.
    """
    found = incremental_of(resource)
    if found is None:
        raise ConfigurationError(f"{place}: the resource has no incremental, so no range of it can be loaded")
    kind, is_naive = _cursor_type(resource, found)
    start = found.initial_value if since is None else _coerce(since, kind, place, is_naive=is_naive)
    if start is None:
        raise ConfigurationError(f"{place}: dlt needs the beginning of a range", "Give --since as well.")
    end = None if until is None else _coerce(until, kind, place, is_naive=is_naive)
    ranged = found.copy()
    ranged.initial_value, ranged._start_value, ranged.lag = start, start, None
    ranged.end_value, ranged.range_start, ranged.range_end = end, "closed", "closed"
    resource.apply_hints(incremental=ranged)


def _cursor_type(resource: Any, incremental: Any) -> tuple[str, bool]:
    """Return dlt's data type of the cursor, and whether its times bear no zone."""
    from dlt.common.data_types.type_helpers import py_type_to_sc_type

    initial = incremental.initial_value
    if initial is not None:
        is_naive = isinstance(initial, datetime) and initial.tzinfo is None
        return py_type_to_sc_type(type(initial)), is_naive
    columns = resource.columns if isinstance(resource.columns, dict) else {}
    column = columns.get(incremental.cursor_path, {})
    return column.get("data_type", "text"), column.get("timezone") is False


def _coerce(text: str, kind: str, place: str, *, is_naive: bool) -> Any:
    from dlt.common.data_types.type_helpers import coerce_value

    try:
        value = coerce_value(kind, "text", text)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{place}: the range is not of the cursor's type, {kind}") from None
    return value.replace(tzinfo=None) if is_naive and isinstance(value, datetime) else value


def _prepare_dlt() -> None:
    """Import dlt with its telemetry off; raises ConfigurationError where it is not installed."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    try:
        import dlt  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigurationError("dlt is not installed", "pip install 'syncline[dlt]'") from None


def _contexts(source: Any, state: State) -> list[Any]:
    """Return what dlt's code finds around it: its state, and while it is read its source."""
    from dlt.common.pipeline import StateInjectableContext

    contexts: list[Any] = [StateInjectableContext(state=state)]
    if source is not None:
        from dlt.extract.source import SourceInjectableContext, SourceSchemaInjectableContext

        contexts.append(source._get_config_section_context())
        contexts += [SourceInjectableContext(source), SourceSchemaInjectableContext(source.schema)]
    return contexts


@contextmanager
def _injected(contexts: list[Any]) -> Iterator[None]:
    from dlt.common.configuration.container import Container

    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(Container().injectable_context(context))
        yield


def _single(resource: Any) -> Any:
    """Return a source of one resource, whose configuration is looked for where it was."""
    from dlt.common.schema import Schema
    from dlt.extract import DltSource

    key = resource._get_config_section_context().source_state_key
    return DltSource(Schema(key), resource.section, [resource])


def _is_temporary(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status == 429 or status >= 500
    return any(kind.__name__ in _TEMPORARY for kind in type(error).__mro__)
