"""Files on a web server and in a store: read as those of a folder are, or an error that says what to do."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncline.connectors import Context
from syncline.connectors.file.connector import FileConnector, FileSource
from syncline.errors import ConfigurationError, SourceError, SourceUnavailableError
from tests.files import read, read_pages

SECRET = "s3cr3t-signature"


class Web:
    """A web server of some files, which knows ranges, entity tags and an index of links."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.statuses: list[int] = []
        """What the next requests are answered with, in place of the file."""
        self.missing_bytes = 0
        """So many bytes of each answer do not come."""
        self.token: str | None = None
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                web.requests.append((self.command, self.path, self.headers.get("Range")))
                path = self.path.partition("?")[0].lstrip("/")
                if web.statuses:
                    self.answer(web.statuses.pop(0), b"")
                elif web.token is not None and self.headers.get("Authorization") != f"Bearer {web.token}":
                    self.answer(403, b"")
                elif path in web.files:
                    self.send_file(web.files[path])
                elif path.endswith("/") or not path:
                    links = "".join(f'<a href="{name.removeprefix(path)}">' for name in web.files)
                    self.answer(200, links.encode())
                else:
                    self.answer(404, b"")

            def send_file(self, content: bytes) -> None:
                tag = {"ETag": f'"{md5(content).hexdigest()}"', "Accept-Ranges": "bytes"}
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
                if match:
                    first, last = int(match[1]), min(int(match[2]), len(content) - 1)
                    where = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
                    self.answer(206, content[first : last + 1], tag | where)
                else:
                    self.answer(200, content, tag)

            def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[: len(body) - web.missing_bytes])
                if web.missing_bytes:
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.fixture
def store() -> Iterator[Any]:
    """What fsspec holds in memory, as an object store would."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


# a web server


def test_web_file(web: Web, tmp_path: Path) -> None:
    """A file is read by its address, whole or below the source's, plain or packed."""
    web.files["data/a.jsonl"] = b'{"id":1}\n'
    web.files["data/b.csv.gz"] = gzip.compress(b"id\n1\n")
    assert read(tmp_path, f"{web.url}/data/a.jsonl") == [b'{"id":1}']
    assert read(tmp_path, "b.csv.gz", source={"path": f"{web.url}/data"}) == [b'{"id":"1"}']


def test_large_web_file_is_one_answer(web: Web, tmp_path: Path) -> None:
    """A file of many blocks is asked for once, so that it cannot change between two parts."""
    web.files["a.jsonl"] = b"".join(b'{"id":%d}\n' % number for number in range(500_000))
    assert sum(len(page.records) for page in read_pages(tmp_path, f"{web.url}/a.jsonl")) == 500_000
    assert [request[0] for request in web.requests].count("GET") == 1


def test_web_parquet(web: Web, tmp_path: Path) -> None:
    """A format that is read at any place is fetched before."""
    pq.write_table(pa.table({"id": range(100_000)}), tmp_path / "a.parquet")
    web.files["a.parquet"] = (tmp_path / "a.parquet").read_bytes()
    assert len(read(tmp_path, f"{web.url}/a.parquet")) == 100_000


def test_web_pattern(web: Web, tmp_path: Path) -> None:
    """A pattern is matched with the links of the index, and a question mark is none: it begins a query."""
    web.files |= {"d/2024-01.jsonl": b'{"id":1}', "d/2024-02.jsonl": b'{"id":2}', "d/other.txt": b"x"}
    assert read(tmp_path, "2024-*.jsonl", source={"path": f"{web.url}/d"}) == [b'{"id":1}', b'{"id":2}']
    assert read(tmp_path, f"{web.url}/d/2024-01.jsonl?part=1") == [b'{"id":1}']


def test_web_file_that_is_unchanged(web: Web, tmp_path: Path) -> None:
    """The entity tag tells whether a file is as it was, without reading it; in a pattern, too."""
    web.files["a.jsonl"] = b'{"id":1}'
    for path in ("a.jsonl", "*.jsonl"):
        source = {"path": f"{web.url}/"}
        cursor = read_pages(tmp_path, path, source=source)[-1].cursor
        (page,) = read_pages(tmp_path, path, cursor=cursor, source=source)
        assert page.is_unchanged
        web.files["a.jsonl"] += b"\n"
        assert not read_pages(tmp_path, path, cursor=cursor, source=source)[0].is_unchanged


def test_web_credentials_go_with_the_options(web: Web, tmp_path: Path) -> None:
    """`storage_options` reach the store, and what is refused without them says so, without showing them."""
    web.token = SECRET
    web.files["a.jsonl"] = b'{"id":1}'
    headers = {"Authorization": f"Bearer {SECRET}"}
    source = {"path": web.url, "storage_options": {"client_kwargs": {"headers": headers}}}
    assert read(tmp_path, "a.jsonl", source=source) == [b'{"id":1}']
    assert SECRET not in repr(FileSource(storage_options=headers))
    with pytest.raises(SourceError, match="may not be read with these credentials") as caught:
        read(tmp_path, f"{web.url}/a.jsonl?signature={SECRET}")
    assert "storage_options" in str(caught.value.hint)
    assert SECRET not in caught.value.message


def test_web_file_that_is_not_there(web: Web, tmp_path: Path) -> None:
    """A missing file is an error that does not pass by itself."""
    for path in ("a.jsonl", "d/*.jsonl"):
        with pytest.raises(SourceError, match=r"no (such )?file") as caught:
            read(tmp_path, f"{web.url}/{path}")
        assert not isinstance(caught.value, SourceUnavailableError)
        assert caught.value.hint


def test_busy_web_server_is_asked_again(web: Web, tmp_path: Path) -> None:
    """A server that is busy for the moment costs a moment."""
    web.files["a.jsonl"] = b'{"id":1}'
    web.statuses = [503] * 2
    assert read(tmp_path, f"{web.url}/a.jsonl") == [b'{"id":1}']


def test_web_server_that_is_down(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stays busy, or is gone, is a failure that may pass."""
    monkeypatch.setattr("syncline.connectors.file.errors.ATTEMPTS", 1)
    web.statuses = [503] * 10
    with pytest.raises(SourceUnavailableError, match="status 503"):
        read(tmp_path, f"{web.url}/a.jsonl")
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        read(tmp_path, "http://127.0.0.1:1/a.jsonl")


def test_web_answer_that_is_cut_off(web: Web, tmp_path: Path) -> None:
    """An answer that ends early never passes for a whole one, even between two records."""
    web.files["a.jsonl"] = b'{"id":1}\n' * 1000
    web.missing_bytes = 9 * 10
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        read(tmp_path, f"{web.url}/a.jsonl")


# a store


def test_store(store: Any, tmp_path: Path) -> None:
    """Files of a store are found by pattern, read in order, and known by their versions."""
    for name, content in {"b/x.jsonl": b'{"id":2}', "a/x.jsonl": b'{"id":1}', "a/y.txt": b"x"}.items():
        store.pipe(f"/bucket/{name}", content)
    source = {"path": "memory://bucket"}
    assert read(tmp_path, "**/*.jsonl", source=source) == [b'{"id":1}', b'{"id":2}']
    assert read(tmp_path, "memory://bucket/b/x.jsonl") == [b'{"id":2}']
    with pytest.raises(SourceError, match="is a folder"):
        read(tmp_path, "a", source=source)
    with pytest.raises(SourceError, match="no such file or bucket"):
        read(tmp_path, "memory://other/a.jsonl")


def test_store_is_read_in_blocks(store: Any, tmp_path: Path) -> None:
    """A large packed file and a Parquet file come whole."""
    lines = b"".join(b'{"id":%d}\n' % number for number in range(300_000))
    store.pipe("/bucket/a.jsonl.gz", gzip.compress(lines, 1))
    assert len(read(tmp_path, "memory://bucket/a.jsonl.gz")) == 300_000
    pq.write_table(pa.table({"id": range(1000)}), tmp_path / "a.parquet")
    store.pipe("/bucket/a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert len(read(tmp_path, "memory://bucket/a.parquet")) == 1000


def test_store_append(store: Any, tmp_path: Path) -> None:
    """A stream with append brings the files that are new in the store."""
    store.pipe("/bucket/1.jsonl", b'{"id":1}')
    source = {"path": "memory://bucket"}
    cursor = read_pages(tmp_path, "*.jsonl", appends=True, source=source)[-1].cursor
    assert cursor is not None
    assert list(cursor["files"]) == ["memory:///bucket/1.jsonl"]
    assert json.loads(json.dumps(cursor)) == cursor
    store.pipe("/bucket/2.jsonl", b'{"id":2}')
    pages = read_pages(tmp_path, "*.jsonl", appends=True, cursor=cursor, source=source)
    assert [page.records for page in pages] == [[b'{"id":2}']]


@pytest.mark.parametrize(
    ("path", "hint"),
    [("gs://bucket/a.jsonl", "gcsfs"), ("az://bucket/a.jsonl", "adlfs"), ("abfs://bucket/a.jsonl", "adlfs")],
)
def test_store_whose_package_is_missing(tmp_path: Path, path: str, hint: str) -> None:
    """A store whose package is not installed is wrong configuration, with what to install."""
    with pytest.raises(ConfigurationError, match="needs a package") as caught:
        read(tmp_path, path)
    assert hint in str(caught.value.hint)


def test_store_that_nobody_knows(tmp_path: Path) -> None:
    """An unknown protocol, and options that a store does not take, are wrong configuration."""
    with pytest.raises(ConfigurationError, match="not known"):
        read(tmp_path, "nowhere://bucket/a.jsonl")


# discovery


def test_discover_store(store: Any, tmp_path: Path) -> None:
    """The files of a store make streams as those of a folder do."""
    store.pipe("/bucket/in/orders-2024-01.csv", b"id\n1\n")
    store.pipe("/bucket/in/orders-2024-02.csv", b"id\n2\n")
    connector = FileConnector(FileSource(path="memory://bucket"), Context(tmp_path))
    (found,) = connector.discover()
    assert (found.name, found.settings, found.records) == ("orders", {"path": "in/orders-*.csv"}, [b'{"id":"2"}'])
