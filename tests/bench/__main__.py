"""Measures speed and memory beside plain psql, in one run on one server; prints ratios and asserts nothing."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from syncline import embedded
from tests.bench import agency, preview, production, readers, sources, trust, volume


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "what", nargs="*", help="volume, memory, preview, trust, agency, production, readers, sources; all without"
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    wanted = arguments.what or ["volume", "memory", "preview", "trust", "agency", "production", "readers", "sources"]
    folder = Path(tempfile.mkdtemp(prefix="syncline bench "))
    folder.chmod(0o755)
    try:
        dsn = embedded.ensure_running(folder)
        if "volume" in wanted:
            volume.measure_speed(dsn, folder, arguments.records)
        if "memory" in wanted:
            volume.measure_memory(dsn, folder, [arguments.records, 3 * arguments.records])
        if "preview" in wanted:
            preview.measure_previews(dsn, folder, arguments.records)
        if "trust" in wanted:
            trust.measure(dsn, folder, arguments.records)
        if "agency" in wanted:
            agency.measure(dsn, folder)
        if "production" in wanted:
            production.measure(dsn, folder)
        if "sources" in wanted:
            sources.measure(dsn, folder, arguments.records)
        if "readers" in wanted:
            readers.measure(dsn, folder)
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
