"""`syncline trigger`: asks an API for a run and follows it, against real services and against one that has outages."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from syncline.cli import main
from tests.projects import Bench
from tests.serving import serving
from tests.workers import Workers

SECRET = "sync_1_this-must-not-show-anywhere"

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


def report(status: str, **changes: Any) -> dict[str, Any]:
    """A run's report as the API gives it."""
    made = {"run_id": 7, "status": status, "trigger": "api", "triggered_by": None, "sources": ["shop"]}
    made |= {"duration_ms": 1200, "steps": [], "entities": {}, "errors": [], "row_errors": 0}
    return made | changes


def step(name: str, status: str) -> dict[str, Any]:
    return {"name": name, "status": status, "duration_ms": None}


class Server:
    """Answers on loopback, by a list of answers of which the last is kept; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [(202, report("queued"))]
        self.asked: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._reply(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def do_GET(self) -> None:
                self._reply(b"")

            def _reply(self, body: bytes) -> None:
                server.asked.append(
                    {
                        "what": f"{self.command} {self.path}",
                        "headers": dict(self.headers),
                        "body": json.loads(body or "null"),
                    }
                )
                status, content, *rest = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (rest[0] if rest else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @property
    def whats(self) -> list[str]:
        return [request["what"] for request in self.asked]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def make_server() -> Iterator[Callable[[], Server]]:
    made: list[Server] = []

    def make() -> Server:
        made.append(Server())
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    return make_server()


def trigger(*arguments: str, token: str | None = SECRET) -> Result:
    environment = {"SYNCLINE_TOKEN": token, "SYNCLINE_SECRET_KEY": None, "NO_PROXY": "*"}
    result = CliRunner().invoke(main, ["trigger", *arguments], env=environment)
    assert SECRET not in result.output
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_asks_for_what_is_wanted(server: Server) -> None:
    """The request carries the token, the run's options and nothing that was not asked for; no project is needed."""
    result = trigger(server.url + "/", "--source", "shop", "--entity", "people", "--dry-run", "--triggered-by", "ci")
    assert (result.exit_code, "run 7" in result.stdout, "queued" in result.stdout) == (0, True, True)
    (asked,) = server.asked
    assert asked["what"] == "POST /api/v1/runs"
    assert asked["body"] == {"sources": ["shop"], "entities": ["people"], "dry_run": True, "triggered_by": "ci"}
    assert asked["headers"]["Authorization"] == f"Bearer {SECRET}"
    assert asked["headers"]["X-Request-Id"]


def test_follows_the_run(server: Server) -> None:
    """With --wait each change of status and step is told once, with its time, and JSON holds the statuses."""
    loading = report("running", steps=[step("load", "running")])
    done = report("succeeded", steps=[step("load", "succeeded"), step("build", "succeeded")])
    server.answers = [(202, report("queued")), (200, report("queued")), (200, loading), (200, loading), (200, done)]
    result = trigger(server.url, "--wait", "--interval", "0.05", "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert (printed["run_id"], printed["status"], printed["url"]) == (7, "succeeded", server.url)
    assert [entry["status"] for entry in printed["statuses"]] == ["queued", "running", "succeeded"]
    assert printed["statuses"] == sorted(printed["statuses"], key=lambda entry: str(entry["at"]))
    told = [line.split("  ", 1)[1] for line in result.stderr.splitlines()[1:]]
    assert told == ["queued", "running", "load running", "load succeeded", "build succeeded", "succeeded"]
    assert server.whats == ["POST /api/v1/runs"] + ["GET /api/v1/runs/7"] * 4


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (report("failed", errors=[{"message": "a test failed", "hint": "mend it", "exit_code": 3}]), 3),
        (report("failed", errors=[{"message": "no answer", "hint": None, "exit_code": 1}]), 1),
        (report("cancelled"), 1),
        (report("abandoned"), 1),
    ],
)
def test_exits_as_the_run_did(server: Server, ended: dict[str, Any], code: int) -> None:
    """The exit code is the run's own, as that of `syncline run` would have been."""
    server.answers = [(202, report("queued")), (200, ended)]
    result = trigger(server.url, "--wait", "--interval", "0.05")
    assert result.exit_code == code
    assert ended["status"] in result.stdout
    assert all(error["message"] in result.stderr for error in ended["errors"])


def test_goes_on_to_the_next_address(make_server: Callable[[], Server]) -> None:
    """A refused connection and a server's own error lead to the next address; all say the same request id."""
    gone, broken, good = make_server(), make_server(), make_server()
    gone.close()
    broken.answers = [(503, {"title": "Unavailable", "detail": "the database does not answer"})]
    result = trigger(f"{gone.url},{broken.url}, {good.url}")
    assert (result.exit_code, f"run 7 at {good.url}" in result.stdout) == (0, True)
    assert broken.asked[0]["headers"]["X-Request-Id"] == good.asked[0]["headers"]["X-Request-Id"]


@pytest.mark.parametrize(
    ("status", "code", "hint"), [(401, 2, "SYNCLINE_TOKEN"), (403, 2, "SYNCLINE_TOKEN"), (422, 2, ""), (409, 3, "")]
)
def test_a_refusal_is_final(make_server: Callable[[], Server], status: int, code: int, hint: str) -> None:
    """What one address refuses is not asked of the next, and the API's words are shown."""
    first, second = make_server(), make_server()
    first.answers = [(status, {"title": "No", "detail": "there is no source named 'x'"})]
    result = trigger(f"{first.url},{second.url}")
    assert (result.exit_code, len(first.asked), second.asked) == (code, 1, [])
    assert "there is no source named 'x'" in result.stderr
    assert hint in result.stderr


def test_says_why_nobody_answers(make_server: Callable[[], Server]) -> None:
    """Where no address answers, each is named with its reason, and the exit code is 1."""
    gone, broken = make_server(), make_server()
    gone.close()
    broken.answers = [(502, b"<html>bad gateway</html>")]
    result = trigger(f"{gone.url},{broken.url}")
    assert result.exit_code == 1
    assert f"{gone.url}: " in result.stderr
    assert f"{broken.url}: answers 502" in result.stderr
    assert "<html>" not in result.stderr


def test_waits_as_long_as_a_busy_server_asks(server: Server) -> None:
    """A 429 is asked again after as long as it says."""
    server.answers = [(429, {"title": "Too many requests"}, {"Retry-After": "1"}), (202, report("queued"))]
    assert trigger(server.url).exit_code == 0
    assert len(server.asked) == 2


def test_an_outage_is_waited_out(server: Server) -> None:
    """A run is followed over an outage of the API, which is told once."""
    out = (503, {"detail": "restarting"})
    server.answers = [(202, report("queued")), out, out, (200, report("succeeded"))]
    result = trigger(server.url, "--wait", "--interval", "0.05")
    assert result.exit_code == 0
    assert result.stdout.count("restarting") == 1


def test_waits_no_longer_than_the_timeout(server: Server) -> None:
    """A run that does not end in time is reported as what it is, with exit code 1."""
    server.answers = [(202, report("queued")), (200, report("running"))]
    result = trigger(server.url, "--wait", "--interval", "0.05", "--timeout", "0.3")
    assert (result.exit_code, "run 7 is still running after 0.3 s" in result.stderr) == (1, True)


@pytest.mark.parametrize("content", [b"<html>hello</html>", {"hello": "there"}, [1]])
def test_an_address_of_something_else(server: Server, content: Any) -> None:
    """What answers without a report is no Syncline API: wrong configuration, not a run."""
    server.answers = [(200, content)]
    result = trigger(server.url)
    assert (result.exit_code, "no report of a run" in result.stderr) == (2, True)


def test_redirects_are_not_followed(make_server: Callable[[], Server]) -> None:
    """The token goes to the given address alone."""
    first, second = make_server(), make_server()
    first.answers = [(307, b"", {"Location": f"{second.url}/api/v1/runs"})]
    result = trigger(first.url)
    assert (result.exit_code, second.asked) == (2, [])


@pytest.mark.parametrize("address", ["", "sync.example.com", "ftp://host", "http://", "https://host/?a=b"])
def test_bad_addresses_are_refused(address: str) -> None:
    """What is no address of an API is wrong usage, before anything is sent."""
    assert trigger(address).exit_code == 2


@pytest.mark.parametrize("end", ["/api/v1", "/api/v1/", "/behind/api/v1"])
def test_an_address_may_end_in_the_path_of_the_api(server: Server, end: str) -> None:
    """What `syncline serve` prints, /api/v1 included, is an address too; a path before it stays."""
    assert trigger(server.url + end).exit_code == 0
    before = end.rstrip("/").removesuffix("/api/v1")
    assert server.whats == [f"POST {before}/api/v1/runs"]


def test_an_address_with_a_password_is_refused_unseen() -> None:
    """A password in an address is refused, and not printed."""
    result = trigger(f"https://user:{SECRET}@host")
    assert (result.exit_code, "holds a user or password" in result.stderr) == (2, True)


def test_the_token_comes_from_a_file_or_the_environment(server: Server, tmp_path: Path) -> None:
    """--token-file goes before the variables; without any there is a clear error; a broken token is not shown."""
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    assert trigger(server.url, "--token-file", str(file)).exit_code == 0
    assert server.asked[-1]["headers"]["Authorization"] == "Bearer from-a-file"
    missing = trigger(server.url, token=None)
    assert (missing.exit_code, "SYNCLINE_TOKEN" in missing.stderr) == (2, True)
    assert trigger(server.url, "--token-file", str(tmp_path / "none")).exit_code == 2
    broken = trigger(server.url, token=SECRET + "\nX-Injected: yes")
    assert (broken.exit_code, len(server.asked)) == (2, 1)


def test_asks_the_real_api_and_follows_the_worker(bench: Bench) -> None:
    """Against `syncline serve` and a worker, a run ends as it would here; wrong names and tokens are refused there."""
    assert bench.call("migrate").returncode == 0
    created = bench.call("token", "create", "ci", "--role", "operator", "--json")
    viewer = bench.call("token", "create", "eyes", "--role", "viewer", "--json")
    token, weak = (json.loads(made.stdout)["token"] for made in (created, viewer))
    with serving(bench) as api, Workers(bench.root, bench.dsn) as workers:
        workers.start()
        wanted = (api.url, "--wait", "--interval", "0.1", "--source", "shop", "--triggered-by", "a button", "--json")
        result = trigger(*wanted, token=token)
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        assert printed["entities"]["people"]["inserted"] == 50
        assert printed["statuses"][-1]["status"] == "succeeded"
        bench.api.records["people"] = []
        refused = trigger(*wanted, token=token)
        assert (refused.exit_code, "error: " in refused.stderr) == (3, True)
        for arguments, used in (((api.url, "--source", "nowhere"), token), ((api.url,), weak), ((api.url,), SECRET)):
            result = trigger(*arguments, token=used)
            assert result.exit_code == 2, result.output
        assert token not in result.output
    assert bench.runs()[0]["triggered_by"] == "a button (ci)"
