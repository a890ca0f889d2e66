"""A small Singer tap, run as a program by the tests: it writes what its config says, by Singer's rules or not."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("config", "catalog", "state"):
        parser.add_argument(f"--{name}", type=lambda path: (json.loads(Path(path).read_text()), path))
    parser.add_argument("--discover", action="store_true")
    options = parser.parse_args()
    config: dict[str, Any] = options.config[0]
    note(config, options)
    for line in config.get("says", []):
        print(line, file=sys.stderr, flush=True)
    if options.discover:
        # Some taps write a catalog of many lines without an end to the last one.
        print(json.dumps(config["discovers"] if "discovers" in config else discovered(config), indent=1), end="")
        return
    script = json.loads(Path(config["steps"]).read_text()) if "steps" in config else []
    script = [*config.get("script", []), *script]
    if script:
        for step in script:
            act(step)
        return
    sync(config, options)


def note(config: dict[str, Any], options: argparse.Namespace) -> None:
    """Write down how this run was called, for the test to read."""
    if "notes" not in config:
        return
    files = [given[1] for given in (options.config, options.catalog, options.state) if given]
    line = {
        "pid": os.getpid(),
        "discover": options.discover,
        "config": config,
        "catalog": options.catalog and options.catalog[0],
        "state": options.state and options.state[0],
        "files": files,
        "modes": [oct(Path(file).stat().st_mode & 0o777) for file in files],
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }
    with Path(config["notes"]).open("a") as file:
        file.write(json.dumps(line) + "\n")


def discovered(config: dict[str, Any]) -> dict[str, Any]:
    streams = [entry(name, **facts) for name, facts in config.get("streams", {"people": {}}).items()]
    if "unsupported" in config:
        breadcrumb = ["properties", config["unsupported"]]
        for stream in streams:
            stream["metadata"].append({"breadcrumb": breadcrumb, "metadata": {"inclusion": "unsupported"}})
    return {"streams": streams}


def entry(name: str, keys: list[str] | None = None, **facts: Any) -> dict[str, Any]:
    properties = {
        "id": {"type": ["integer", "null"]},
        "name": {"type": ["null", "string"]},
        "at": {"type": "string", "format": "date-time"},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    metadata = [
        {"breadcrumb": [], "metadata": {"table-key-properties": ["id"] if keys is None else keys, **facts}},
        {"breadcrumb": ["properties", "id"], "metadata": {"inclusion": "automatic"}},
    ]
    schema = {"type": "object", "properties": properties}
    return {"tap_stream_id": name, "stream": name, "schema": schema, "metadata": metadata}


def act(step: Any) -> None:
    """Write a message, or text as it is, or do something else than write."""
    match step:
        case {"exit": code}:
            sys.stdout.flush()
            sys.exit(code)
        case {"kill": _}:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        case {"sleep": seconds}:
            sys.stdout.flush()
            time.sleep(seconds)
        case {"child": file}:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path(file).write_text(str(child.pid))
        case {"many": count}:
            for number in range(count):
                print(json.dumps({"type": "RECORD", "stream": "people", "record": {"id": number}}))
        case str():
            sys.stdout.write(step)
        case _:
            print(json.dumps(step))


def sync(config: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the selected streams from the files that the config names, from the bookmark on."""
    state = options.state[0] if options.state else {"bookmarks": {}}
    for stream in options.catalog[0]["streams"]:
        if not stream["selected"]:
            continue
        name, method = stream["tap_stream_id"], stream["replication_method"]
        print(json.dumps({"type": "SCHEMA", "stream": name, "schema": stream["schema"], "key_properties": ["id"]}))
        after = state["bookmarks"].get(name, {}).get("at", "") if method == "INCREMENTAL" else ""
        kept = {
            item["breadcrumb"][1] for item in stream["metadata"] if item["breadcrumb"] and item["metadata"]["selected"]
        }
        for line in Path(config["folder"], f"{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["at"] < after:
                continue
            record = {key: value for key, value in record.items() if key in kept}
            print(json.dumps({"type": "RECORD", "stream": name, "record": record | {"_sdc_extracted_at": time.time()}}))
            state["bookmarks"][name] = {"at": record["at"]}
            print(json.dumps({"type": "STATE", "value": state}))


if __name__ == "__main__":
    main()
