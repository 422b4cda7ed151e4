"""A Hub on the loopback interface: enough of its interface for a download, and for what can go wrong with one."""

import hashlib
import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def commit_of(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


@dataclass
class Repository:
    """Files by revision; a revision's commit is a hash of its name."""

    files: dict[str, dict[str, bytes]]
    status: int = 200  # of every answer
    code: str = ""  # the Hub's name for what is wrong
    breaks: dict[str, int] = field(default_factory=dict)  # transfers of a file that break off half way

    def at(self, revision: str) -> dict[str, bytes] | None:
        by_commit = {commit_of(name): files for name, files in self.files.items()}
        return self.files.get(revision, by_commit.get(revision))


class FakeHub(ThreadingHTTPServer):
    """Serves `repositories` from a thread of its own; `requests` is what was asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloads(self, file: str) -> list[str]:
        """The ranges in which a file was asked for."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith(f"/{file}")]

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range", "")))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repository = self.server.repositories.get("/".join(parts[:2]))
        if repository is None:
            return self.reply(404, code="RepoNotFound")
        if repository.status != 200:
            return self.reply(repository.status, code=repository.code)
        kind, revision, name = (*parts[2:], "main", "")[:2] + ("/".join(parts[4:]),)
        files = repository.at(revision)
        if files is None:
            return self.reply(404, code="RevisionNotFound")
        if path.startswith("/api/"):
            return self.describe(kind, "/".join(parts[:2]), revision, files)
        self.send(repository, name, files, revision, body)

    def describe(self, kind: str, repo: str, revision: str, files: dict[str, bytes]) -> None:
        commit = commit_of(revision) if len(revision) != 40 else revision
        if kind == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self.reply(200, json.dumps(entries).encode())
        siblings = [{"rfilename": name} for name in files]
        self.reply(200, json.dumps({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings}).encode())

    def send(self, repository: Repository, name: str, files: dict[str, bytes], revision: str, body: bool) -> None:
        content = files.get(name)
        if content is None:
            return self.reply(404, code="EntryNotFound")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        about = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if start:
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part = content[start:]
        breaks = body and repository.breaks.get(name, 0) > 0
        if breaks:
            repository.breaks[name] -= 1
        sent = part[: len(part) // 2] if breaks else part
        self.reply(206 if start else 200, sent if body else b"", about, length=len(part))
        self.close_connection = self.close_connection or breaks

    def reply(
        self, status: int, content: bytes = b"", headers: dict | None = None, code: str = "", length: int | None = None
    ) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


def surround(settings: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("HF_")]:
        del os.environ[name]
    os.environ.update(settings)


def with_hub(hub: FakeHub, home: Path, **environment: str) -> ProcessPoolExecutor:
    """A Python of its own that asks this Hub: huggingface_hub reads where the Hub is when it is imported."""
    settings = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), surround, (settings,))
