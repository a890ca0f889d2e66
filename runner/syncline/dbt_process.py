"""The process that dbt runs in: reads one JSON request a line, answers with JSON lines. Started by `syncline.dbt`.

dbt is slow to import and keeps state for its process' life, so it gets one of its own, which stays warm.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt.contracts.graph.manifest import Manifest
from jinja2 import Environment, nodes

from syncline.dbt_errors import explain, explain_model, explain_test

_QUIET = ["--quiet", "--no-write-json"]
_QUIET += ["--log-level", "none", "--log-level-file", "none", "--no-print", "--no-use-colors"]


_MOST_TREES = 10_000
"""Templates that are kept parsed: dbt has five hundred macros of its own."""

_SETTINGS = frozenset(
    {"changes", "delta", "external_ref", "history", "indexes", "max_delete_ratio", "max_error_ratio", "on_missing"}
)
"""What an entity's config may set beside dbt's own."""


class DbtProcess:
    """Answers requests until its standard input ends."""

    def __init__(self, project: Path, answers: TextIO) -> None:
        self._project = project
        self._answers = answers
        self._request = 0
        self._manifest: Manifest | None = None
        self._stamp: tuple[tuple[str, int], ...] = ()

    def serve(self, requests: TextIO) -> None:
        for line in requests:
            request = json.loads(line)
            self._request = request.pop("request")
            try:
                answer = getattr(self, "do_" + request.pop("do"))(**request)
            except Exception as error:
                answer = {"error": _first_line(str(error)) or type(error).__name__}
            self._send({"answer": answer})

    def do_parse(self) -> dict[str, Any]:
        """Read the project, if it changed since; answer with its entities."""
        stamp = self._files_stamp()
        if self._manifest is None or stamp != self._stamp:
            # Partial parsing can lose a test when its file changes together with its model's, and a check that is lost
            # lets anything through.
            result = self._invoke(["parse", "--no-partial-parse"], manifest=None)
            if not result.success:
                return {"error": explain(str(result.exception))}
            self._manifest, self._stamp = result.result, stamp
            # The manifest stays: a collector that walks through it again and again costs a twentieth of a run.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        unknown = _unknown_setting(self._manifest)
        return {"error": unknown} if unknown else _describe(self._manifest)

    def do_build(self, select: list[str], options: str, is_exact: bool) -> dict[str, Any]:
        """Build and test what `select` names, and where it is not exact all tests on it.

        `options` are the session settings of dbt's connections.
        """
        os.environ["PGOPTIONS"] = options
        arguments = ["build", "--select", *select, "--exclude-resource-type", "unit_test", "--no-fail-fast"]
        if is_exact:
            arguments += ["--indirect-selection", "empty"]
        if self._manifest is not None:
            _forget_ctes(self._manifest)
        result = self._invoke(arguments, manifest=self._manifest)
        if result.exception is not None:
            return {"error": explain(str(result.exception))}
        return {"nodes": [_report(item) for item in result.result.results]}

    def _invoke(self, arguments: list[str], manifest: Manifest | None) -> dbtRunnerResult:
        state = self._project / ".syncline"
        folders = ["--project-dir", str(self._project), "--profiles-dir", str(self._project)]
        folders += ["--target-path", str(state / "target"), "--log-path", str(state / "logs")]
        return dbtRunner(manifest=manifest, callbacks=[self._on_event]).invoke([*_QUIET, *arguments, *folders])

    def _on_event(self, event: Any) -> None:
        if event.info.name in ("NodeStart", "NodeFinished"):
            node = event.data.node_info
            self._send({"event": event.info.name, "node": node.unique_id, "status": node.node_status})

    def _send(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message | {"request": self._request}) + "\n")
        self._answers.flush()

    def _files_stamp(self) -> tuple[tuple[str, int], ...]:
        skipped = {".syncline", ".venv", ".git", "node_modules"}
        files = []
        for folder, folders, names in os.walk(self._project):
            folders[:] = [name for name in folders if name not in skipped]
            files += [Path(folder, name) for name in names if name.endswith((".sql", ".yml", ".yaml", ".csv", ".md"))]
        return tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files))


def _unknown_setting(manifest: Manifest) -> dict[str, str | None] | None:
    """What to say of an entity whose config sets what neither dbt nor the materialization knows; None without one."""
    for node in manifest.nodes.values():
        if node.resource_type == "model" and node.config.materialized == "versioned":
            for name in sorted(set(node.config._extra) - _SETTINGS):
                return {
                    "message": f"{node.name}: unknown config {name!r} in {node.original_file_path}",
                    "hint": f"Known beside dbt's own: {', '.join(sorted(_SETTINGS))}.",
                }
    return None


def _parse_templates_once() -> None:
    """Keep what Jinja has parsed: dbt parses all of its own macros again whenever a file of the project has changed.

    dbt only looks at these trees; what it renders is compiled from the text.
    """
    parse = Environment.parse
    trees: dict[tuple[Any, ...], nodes.Template] = {}

    def parse_once(
        environment: Environment, source: str, name: str | None = None, filename: str | None = None
    ) -> nodes.Template:
        key = (type(environment), *environment.extensions, str(source))
        if key not in trees:
            if len(trees) >= _MOST_TREES:
                trees.clear()
            trees[key] = parse(environment, source, name, filename)
        return trees[key]

    Environment.parse = parse_once  # type: ignore[assignment, method-assign]


def _forget_ctes(manifest: Manifest) -> None:
    """Make dbt inject ephemeral models anew: it renders models with each build, and takes an injection for done."""
    for node in manifest.nodes.values():
        if getattr(node, "extra_ctes_injected", False):
            node.compiled, node.compiled_code = False, None
            node.extra_ctes_injected, node.extra_ctes, node._pre_injected_sql = False, [], None


def _describe(manifest: Manifest) -> dict[str, Any]:
    entities: dict[str, Any] = {}
    downstream: dict[str, Any] = {}
    for unique_id, node in manifest.nodes.items():
        if node.resource_type == "model" and node.config.materialized == "versioned":
            streams, parents = _read(manifest, node)
            entities[node.name] = {
                "node": unique_id,
                "schema": node.schema,
                "streams": sorted(streams),
                "reads": sorted(parents),
                "parents": sorted(parents | _related(manifest, unique_id)),
                "max_error_ratio": node.config.get("max_error_ratio", 0.1),
                "delta": node.config.get("delta", "auto"),
            }
        elif node.resource_type in ("model", "snapshot") and node.config.materialized != "ephemeral":
            feeding = sorted(_ancestors(manifest, node))
            if feeding:
                text = node.raw_code + str(sorted(manifest.macros[name].macro_sql for name in node.depends_on.macros))
                downstream[node.name] = {
                    "schema": node.schema,
                    "alias": node.alias,
                    "entities": feeding,
                    "is_view": node.config.materialized == "view",
                    "fingerprint": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
                }
    return {"entities": entities, "downstream": downstream, "tests": _tests(manifest)}


def _tests(manifest: Manifest) -> dict[str, list[str]]:
    """The tests that read entities and no other model, with the entities they read."""
    found = {}
    for node in manifest.nodes.values():
        if node.resource_type != "test":
            continue
        parents = [manifest.nodes.get(unique_id) for unique_id in node.depends_on.nodes]
        if parents and all(parent is not None and parent.config.materialized == "versioned" for parent in parents):
            found[node.name] = sorted({parent.name for parent in parents if parent is not None})
    return found


def _ancestors(manifest: Manifest, node: Any) -> set[str]:
    """The entities that an ordinary model is made from, however far."""
    found = set()
    for unique_id in node.depends_on.nodes:
        parent = manifest.nodes.get(unique_id)
        if parent is None or parent.resource_type not in ("model", "snapshot"):
            continue
        if parent.config.materialized == "versioned":
            found.add(parent.name)
        else:
            found |= _ancestors(manifest, parent)
    return found


def _read(manifest: Manifest, node: Any) -> tuple[set[str], set[str]]:
    streams, parents = set(), set()
    for unique_id in node.depends_on.nodes:
        if unique_id in manifest.sources:
            source = manifest.sources[unique_id]
            streams.add(f"{source.source_name}.{source.name}")
            continue
        parent = manifest.nodes.get(unique_id)
        if parent is None:
            continue
        if parent.config.materialized == "versioned":
            parents.add(parent.name)
        elif parent.config.materialized == "ephemeral":
            more_streams, more_parents = _read(manifest, parent)
            streams |= more_streams
            parents |= more_parents
    return streams, parents


def _related(manifest: Manifest, unique_id: str) -> set[str]:
    """The entities that relationships tests on this one point to."""
    found = set()
    for test in manifest.nodes.values():
        metadata = getattr(test, "test_metadata", None)
        if metadata is None or metadata.name != "relationships" or test.attached_node != unique_id:
            continue
        for other in test.depends_on.nodes:
            if other != unique_id and other in manifest.nodes:
                found.add(manifest.nodes[other].name)
    return found


def _report(result: Any) -> dict[str, Any]:
    node = result.node
    report = {
        "node": node.unique_id,
        "kind": str(node.resource_type),
        "name": node.name,
        "status": str(result.status),
        "failures": result.failures,
    }
    if str(node.resource_type) == "test":
        metadata = getattr(node, "test_metadata", None)  # a test written as SQL has none
        report |= {
            "entities": [unique_id.rsplit(".", 1)[-1] for unique_id in node.depends_on.nodes],
            "attached": (getattr(node, "attached_node", None) or "").rsplit(".", 1)[-1],
            "test": metadata.name if metadata else node.name,
            "column": getattr(node, "column_name", None),
            "sql": node.compiled_code,
        }
    if str(result.status) in ("error", "fail", "runtime error"):
        message = result.message or ""
        if report["kind"] == "model":
            report |= explain_model(message, node.name, node.original_file_path, node.compiled_code)
        else:
            report |= explain_test(message)
    return report


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def main() -> None:
    # dbt and its plugins write to standard output as they please: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    reading, writing = os.pipe()

    def pump() -> None:
        with os.fdopen(writing, "w", encoding="utf-8") as out:
            for line in sys.stdin:
                out.write(line)
                out.flush()
        os._exit(0)  # the runner is gone, and with it the run

    threading.Thread(target=pump, daemon=True).start()
    _parse_templates_once()
    with os.fdopen(reading, encoding="utf-8") as requests:
        DbtProcess(Path(sys.argv[1]), answers).serve(requests)


if __name__ == "__main__":
    main()
