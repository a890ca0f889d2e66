"""Serves the agency's next generation, syncs it with the arguments given, and stops the server."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from syncline.paths import find_project, state_folder

HERE = Path(__file__).resolve().parent


def main() -> int:
    project = find_project(HERE)
    token = secrets.token_hex()  # never with a dash in front, which would make it an option
    state = state_folder(project) / "agency-generation"
    server = subprocess.Popen(
        [
            sys.executable,
            str(HERE / "server.py"),
            "--port",
            "0",
            "--token",
            token,
            "--state",
            str(state),
            "--until-stdin-closes",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    try:
        url = server.stdout.readline().strip().rpartition(" ")[2]
        if not url.startswith("http"):
            print("the agency's server did not start; its message is above", file=sys.stderr)
            return 1
        environment = os.environ | {"AGENCY_API_URL": url, "AGENCY_API_TOKEN": token}
        command = [sys.executable, "-m", "syncline", "run", "agency", *sys.argv[1:]]
        return subprocess.run(command, cwd=project, env=environment, check=False).returncode
    finally:
        server.stdin.close()
        server.wait(timeout=10)
        server.stdout.close()


if __name__ == "__main__":
    sys.exit(main())
