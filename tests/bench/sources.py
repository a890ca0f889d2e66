"""Loads of a million records by each connector, first and unchanged, beside dlt, sling and the least there can be."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from psycopg.conninfo import conninfo_to_dict

from syncline import embedded
from syncline.config import read_project
from syncline.pipeline import Engine, run
from syncline.report import SilentWatcher
from syncline.run_options import RunOptions
from syncline.scaffold import create_project
from tests.bench.volume import check, copy_command, make_database, make_project, peak_of, psql, records, timed
from tests.sheets import SPREADSHEET, Sheets, Tab

PAGE = 1000
PEERS = Path(__file__).parent / "peers.py"


def measure(dsn: str, folder: Path, count: int) -> None:
    """Print records a second and peak memory of first loads and unchanged ones."""
    file = folder / "people.jsonl"
    with file.open("w") as out:
        out.writelines(records(count))
    print(f"\n{count:,} records of about 300 bytes; thousand records a second: first load, unchanged load; peak MB")
    with _Peers(folder, dsn) as peers:
        _file(dsn, folder, file, count, peers)
        _http(dsn, folder, file, count, peers)
        _push(dsn, folder, file, count)
        _singer(dsn, folder, file, count)
        _dlt(dsn, folder, file, count)
        _sheets(dsn, folder, count // 10)
        _postgres(dsn, folder, file, count, peers)
    file.unlink()


class _Peers:
    """dlt and sling, installed beside the bench; they speak TCP, so socat stands between them and the socket."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._python = folder / "peers" / "bin" / "python"
        given = conninfo_to_dict(dsn)
        self._user, self._socket = given["user"], Path(str(given["host"])) / f".s.PGSQL.{given.get('port', 5432)}"
        self._port = _free_port()
        self._socat: subprocess.Popen[bytes] | None = None
        self.sling: Path | None = None

    def __enter__(self) -> _Peers:
        if shutil.which("socat") is None:
            print("  dlt and sling are not measured: they need socat")
            return self
        subprocess.run([sys.executable, "-m", "venv", str(self._python.parents[1])], check=True)
        wanted = ["dlt[postgres,sql-database,filesystem]", "psycopg2-binary", "sling-linux-amd64"]
        subprocess.run(
            [self._python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted], check=True
        )
        (self.sling,) = self._python.parents[1].glob("lib/*/site-packages/sling_linux_amd64/bin/sling-linux-amd64")
        self.sling.chmod(0o755)
        self._socat = subprocess.Popen(
            ["socat", f"TCP-LISTEN:{self._port},bind=127.0.0.1,fork,reuseaddr", f"UNIX-CONNECT:{self._socket}"]
        )
        _await_port(self._port)
        for name, command in (
            ("dlt", [self._python, "-c", "import dlt; print(dlt.__version__)"]),
            ("sling", [self.sling, "--version"]),
        ):
            print(f"  {name} {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._socat:
            self._socat.terminate()
            self._socat.wait()

    @property
    def has_dlt(self) -> bool:
        return self._python.exists()

    def dlt(self, kind: str, source: str, database: str) -> tuple[float, float]:
        """Seconds and MB of a dlt pipeline that merges by id."""
        folder = self._python.parents[2] / "dlt"
        environment = {"DLT_DATA_DIR": str(folder), "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
        command = [str(self._python), str(PEERS), kind, source, self.url(database)]
        return _spent(command, environment)

    def run_sling(self, connection: str, stream: str, database: str) -> tuple[float, float]:
        """Seconds and MB of a sling run that merges by id."""
        command = [str(self.sling), "run", "--src-conn", connection, "--src-stream", stream]
        command += ["--tgt-conn", self.url(database), "--tgt-object", "public.people"]
        command += ["--mode", "incremental", "--primary-key", "id", "--src-options", '{"flatten": true}']
        return _spent(command, {"SLING_DISABLE_TELEMETRY": "true"})

    def url(self, database: str, scheme: str = "postgresql") -> str:
        name = conninfo_to_dict(database)["dbname"]
        return f"{scheme}://{self._user}:none@127.0.0.1:{self._port}/{name}?sslmode=disable"


def _file(dsn: str, folder: Path, file: Path, count: int, peers: _Peers) -> None:
    stream = {"path": str(file), "key": "id"}
    _print("file: syncline", count, _syncline(dsn, folder, "file", {"connector": "file"}, stream, touch=file))
    if peers.has_dlt:
        _print("file: dlt", count, _twice(lambda database: peers.dlt("file", str(file), database), dsn))
    if peers.sling:
        _print("file: sling", count, _twice(lambda db: peers.run_sling("LOCAL", f"file://{file}", db), dsn))


def _http(dsn: str, folder: Path, file: Path, count: int, peers: _Peers) -> None:
    if shutil.which("nginx") is None:
        print("  http is not measured: it needs nginx")
        return
    with _nginx(folder, file, count) as url:
        pages = -(-count // PAGE)
        limit = timed(lambda: _drop_pages(url, pages))
        print(f"  http: httpx, pages read and dropped {count / limit / 1000:.0f}")
        source = {
            "connector": "http",
            "base_url": url,
            "paginator": {"type": "page_number", "base_page": 1, "total_path": "pages"},
            "data_selector": "data",
        }
        spent = _syncline(dsn, folder, "http", source, {"path": "people", "key": "id"})
        _print("http: syncline", count, spent, limit)
        if peers.has_dlt:
            _print("http: dlt", count, _twice(lambda database: peers.dlt("http", url, database), dsn))


def _push(dsn: str, folder: Path, file: Path, count: int) -> None:
    source, stream = {"connector": "push"}, {"key": "id"}
    spent = _syncline(dsn, folder, "push", source, stream, arguments=["--stdin", "--full"], stdin=file)
    _print("push: syncline", count, spent)


def _singer(dsn: str, folder: Path, file: Path, count: int) -> None:
    """A tap that costs next to nothing: it prints messages that were made before."""
    tap, messages = folder / "tap.py", folder / "messages.jsonl"
    with file.open() as lines, messages.open("w") as out:
        out.write('{"type":"SCHEMA","stream":"people","schema":{"type":"object"},"key_properties":["id"]}\n')
        out.writelines(f'{{"type":"RECORD","stream":"people","record":{line.rstrip()}}}\n' for line in lines)
    catalog = {
        "streams": [{"tap_stream_id": "people", "stream": "people", "schema": {"type": "object"}, "metadata": []}]
    }
    tap.write_text(
        "import os, shutil, sys\n"
        f"if '--discover' in sys.argv: print({json.dumps(json.dumps(catalog))})\n"
        f"else: shutil.copyfileobj(open({str(messages)!r}, 'rb'), sys.stdout.buffer, 1 << 20)\n"
    )
    source = {"connector": "singer", "command": [sys.executable, str(tap)]}
    _print("singer: syncline", count, _syncline(dsn, folder, "singer", source, {"key": "id"}))
    messages.unlink()


def _dlt(dsn: str, folder: Path, file: Path, count: int) -> None:
    """A resource that costs little: it parses the file's lines."""
    (folder / "bench dlt").mkdir()
    (folder / "bench dlt" / "people_source.py").write_text(
        "import dlt, orjson\n"
        "@dlt.resource(primary_key='id')\n"
        "def people():\n"
        f"    with open({str(file)!r}, 'rb') as lines:\n"
        "        while block := lines.readlines(1 << 20):\n"
        "            yield [orjson.loads(line) for line in block]\n"
    )
    source = {"connector": "dlt", "resource": "people_source:people"}
    _print("dlt resource: syncline", count, _syncline(dsn, folder, "dlt", source, {"key": "id", "mode": "full"}))


def _sheets(dsn: str, folder: Path, count: int) -> None:
    """A tab on a server of our own, which is what takes the time: fewer rows."""
    names = ["id", "name", "email", "city", "visits"]
    rows = [[f"{number}", f"Person {number}", f"p{number}@example.com", "Rome", number % 7] for number in range(count)]
    server = Sheets(tabs={"people": Tab([names, *rows])})
    try:
        source = {
            "connector": "google_sheets",
            "spreadsheet": SPREADSHEET,
            "credentials": server.credentials(),
            "api_url": server.url,
        }
        _print(
            f"google_sheets ({count:,} rows): syncline",
            count,
            _syncline(dsn, folder, "sheets", source, {"tab": "people", "key": "id"}),
        )
    finally:
        server.close()


def _increment(dsn: str, folder: Path, source: str, count: int) -> None:
    """A thousand rows changed in another Postgres, into an entity of a million, in a warm process."""
    psql(
        source,
        "alter table people add column updated_at timestamptz not null default '2026-01-01'",
        "create index on people (updated_at)",
    )
    root = folder / "bench increment"
    stream = {"incremental": {"cursor_path": "updated_at"}}
    make_project(root, {"connector": "postgres", "dsn": source}, stream)
    database = make_database(dsn, "bench_increment")
    with Engine(read_project(root), database) as engine:
        for number in range(4):
            if number:
                psql(
                    source,
                    f"update people set visits = visits + 1, updated_at = date '2026-01-02' + {number}"
                    f" where id % {count // 1000} = 7",
                )
            started = time.perf_counter()
            report = run(engine, RunOptions(wait_timeout=0), SilentWatcher(None))  # type: ignore[arg-type]
            seconds = time.perf_counter() - started
            check(report)
            steps = ", ".join(f"{step['name']} {step['duration_ms'] / 1000:.2f}" for step in report["steps"])
            what = "1,000 changed" if number else "first sync"
            print(f"  postgres, increment into {count:,}: {what} {seconds:.2f} s (goal 2 s): {steps}", flush=True)


def _postgres(dsn: str, folder: Path, file: Path, count: int, peers: _Peers) -> None:
    source = make_database(dsn, "bench_source")
    psql(
        source,
        "create table raw (payload json)",
        copy_command(file),
        """create table people as select (p ->> 'id')::bigint as id, p ->> 'name' as name, p ->> 'email' as email,
        (p ->> 'birthDate')::date as "birthDate", (p ->> 'createdAt')::timestamptz as "createdAt",
        (p ->> 'isActive')::boolean as "isActive", (p ->> 'score')::float8 as score,
        (p ->> 'balance')::numeric as balance,
        (p ->> 'visits')::int as visits, p ->> 'city' as city, p ->> 'note' as note
        from (select payload::jsonb as p from raw offset 0) as x""",
        "alter table people add primary key (id)",
        "drop table raw",
        "vacuum analyze people",
    )
    limit = timed(lambda: _copy_through(source, make_database(dsn, "bench_plain")))
    print(f"  postgres: psql, COPY out as JSON into COPY in, unique index {count / limit / 1000:.0f}")
    spent = _syncline(dsn, folder, "postgres", {"connector": "postgres", "dsn": source}, {"table": "people"})
    _print("postgres: syncline", count, spent, limit)
    if peers.has_dlt:
        url = peers.url(source, "postgresql+psycopg2")
        _print("postgres: dlt", count, _twice(lambda database: peers.dlt("postgres", url, database), dsn))
    if peers.sling:
        url = peers.url(source)
        _print("postgres: sling", count, _twice(lambda database: peers.run_sling(url, "public.people", database), dsn))
    _increment(dsn, folder, source, count)


def _syncline(
    dsn: str,
    folder: Path,
    name: str,
    source: Mapping[str, Any],
    stream: Mapping[str, Any],
    touch: Path | None = None,
    arguments: Sequence[str] = (),
    stdin: Path | None = None,
) -> list[tuple[float, float]]:
    """Seconds and MB of `syncline load`, its start included; the second time what is read is the same."""
    root = folder / f"bench {name}"
    create_project(root)
    declared = {
        "name": "bench",
        "schema": "raw_bench",
        "config": {"meta": {"syncline": source}},
        "tables": [{"name": "people", "config": {"meta": {"syncline": stream}}}],
    }
    (root / "dbt_project" / "models" / "sources.yml").write_text(json.dumps({"sources": [declared]}))
    database = make_database(dsn, f"bench_{name}")
    environment = {"DATABASE_URL": database}
    command = [sys.executable, "-m", "syncline", "load", "bench", "people", "--json", *arguments]
    subprocess.run([*command[:3], "migrate"], cwd=root, env=os.environ | environment, check=True, capture_output=True)
    spent = [_spent(command, environment, root, stdin)]
    if touch is not None:
        touch.touch()
    return [*spent, _spent(command, environment, root, stdin)]


def _twice(action: Any, dsn: str) -> list[tuple[float, float]]:
    database = make_database(dsn, "bench_peer")
    return [action(database), action(database)]


def _spent(
    command: list[str], environment: Mapping[str, str], folder: Path | None = None, stdin: Path | None = None
) -> tuple[float, float]:
    started = time.perf_counter()
    peak = peak_of(command, environment, folder, stdin)
    return time.perf_counter() - started, peak


def _print(what: str, count: int, spent: list[tuple[float, float]], limit: float | None = None) -> None:
    rates = ", ".join(f"{count / seconds / 1000:.0f}" for seconds, _ in spent)
    beside = f"; first in {spent[0][0] / limit:.2f} of the least" if limit else ""
    print(f"  {what} {rates}; {max(peak for _, peak in spent):.0f} MB{beside}", flush=True)


def _drop_pages(url: str, pages: int) -> None:
    with httpx.Client() as client:
        for page in range(1, pages + 1):
            client.get(f"{url}people", params={"page": page}).raise_for_status()


def _copy_through(source: str, target: str) -> None:
    """What no reader of another Postgres can undercut: its rows as JSON from COPY to COPY, with the same index."""
    psql(target, "create table raw (_key text, payload json)")
    out = subprocess.Popen(
        [
            embedded.binary("psql"),
            "-qX",
            "-d",
            source,
            "-c",
            "copy (select id, row_to_json(t) from people as t) to stdout",
        ],
        stdout=subprocess.PIPE,
    )
    into = [embedded.binary("psql"), "-qX", "-d", target, "-c", "copy raw from stdin"]
    subprocess.run(into, stdin=out.stdout, check=True)
    out.wait()
    psql(target, "create unique index on raw (_key)")


@contextmanager
def _nginx(folder: Path, file: Path, count: int) -> Iterator[str]:
    """Serve the records as prerendered pages: /people?page=N."""
    root = folder / "pages"
    root.mkdir()
    pages = -(-count // PAGE)
    with file.open() as lines:
        for page in range(1, pages + 1):
            some = [next(lines).strip() for _ in range(min(PAGE, count - (page - 1) * PAGE))]
            (root / f"{page}.json").write_text(f'{{"pages": {pages}, "data": [{",".join(some)}]}}')
    port = _free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""
        daemon off; worker_processes 1; pid "{folder}/nginx.pid"; error_log stderr crit;
        {"user root;" if os.getuid() == 0 else ""}
        events {{ worker_connections 64; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000; default_type application/json;
            client_body_temp_path "{folder}/body"; proxy_temp_path "{folder}/proxy";
            fastcgi_temp_path "{folder}/fastcgi"; uwsgi_temp_path "{folder}/uwsgi"; scgi_temp_path "{folder}/scgi";
            server {{
                listen 127.0.0.1:{port};
                location = /people {{ root "{root}"; try_files /$arg_page.json =404; }}
            }}
        }}
        """
    )
    server = subprocess.Popen(["nginx", "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        _await_port(port)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def _await_port(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
