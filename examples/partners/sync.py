"""Serves the agency's next generation, syncs it with the arguments given, and stops the server."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

from server import SPREADSHEET, PartnersServer

from syncline.paths import find_project, state_folder

HERE = Path(__file__).resolve().parent


def main() -> int:
    project = find_project(HERE)
    state = state_folder(project) / "partners-generation"
    number = int(state.read_text(encoding="utf-8")) + 1 if state.exists() else 1
    with PartnersServer(0, secrets.token_urlsafe(), number) as server:
        state.write_text(f"{number}\n", encoding="utf-8")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = os.environ | {
            "SHEETS_API_URL": server.url,
            "PARTNERS_SHEET": SPREADSHEET,
            "GOOGLE_SERVICE_ACCOUNT": server.credentials(),
            "CRM_API_URL": server.url,
            "CRM_API_TOKEN": server.token,
        }
        command = [sys.executable, "-m", "syncline", "run", "sheet", "crm", *sys.argv[1:]]
        try:
            return subprocess.run(command, cwd=project, env=environment, check=False).returncode
        finally:
            server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
