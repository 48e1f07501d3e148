"""A hub of models on this machine: a server that answers huggingface_hub as huggingface.co does, from memory.

What it answers follows https://huggingface.co/docs/hub/api and the headers that `huggingface_hub.file_download` reads:
X-Repo-Commit and ETag for every file; of large ones, which huggingface.co keeps elsewhere, a redirect with
X-Linked-Size and X-Linked-Etag; X-Error-Code for what is not there, or not for everyone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, hf_api

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
LARGE_BYTES = 10_000  # from here on files are kept elsewhere


@dataclass
class Repository:
    """The files of a model at its one commit, by name. Of a gated one the listing and its card are for everyone."""

    files: dict[str, bytes]
    gated: bool = False
    commit: str = COMMIT


@dataclass
class FakeHub:
    """Models by their ids, and what was asked of the server: `METHOD /path`."""

    url: str
    server: ThreadingHTTPServer
    models: dict[str, Repository] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def put(self, name: str, files: Mapping[str, bytes | str | dict] | Path, *, gated: bool = False) -> Repository:
        """Publish a folder, or files by their names (of JSON values their texts)."""
        found = read_folder(files) if isinstance(files, Path) else {name: _bytes(it) for name, it in files.items()}
        self.models[name] = Repository(found, gated)
        return self.models[name]

    @property
    def downloads(self) -> set[str]:
        """The names of all files whose content was asked for so far."""
        paths = [entry.removeprefix("GET /").split("/") for entry in self.log if entry.startswith("GET ")]
        small = {"/".join(parts[4:]) for parts in paths if parts[2:3] == ["resolve"]}
        return small | {"/".join(parts[3:]) for parts in paths if parts[0] == "large"}

    def point_client(self, patch: Any, cache: Path) -> None:
        """Let the hub's client of this process ask here, and keep what it gets in `cache`. `patch` is a MonkeyPatch."""
        patch.setattr(constants, "ENDPOINT", self.url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(hf_api.api, "endpoint", self.url)
        patch.setenv("HF_HUB_CACHE", str(cache))

    def shut_down(self) -> None:
        """Be unreachable from now on."""
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """A hub without models, on a port of its own, as long as it is open."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = server.hub = FakeHub(f"http://127.0.0.1:{server.server_port}", server)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shut_down()
        thread.join()


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _bytes(content: bytes | str | dict) -> bytes:
    if isinstance(content, dict):
        content = json.dumps(content)
    return content.encode() if isinstance(content, str) else content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        """Nothing on standard error."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub: FakeHub = self.server.hub
        parts = path.strip("/").split("/")
        hub.log.append(f"{self.command} {path}")
        if parts[0] == "large":
            return self._send_file(hub.models["/".join(parts[1:3])], "/".join(parts[3:]))
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._answer_api("/".join(parts[2:4]), parts[4:])
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._answer_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._refuse(404, "EntryNotFound")

    def _answer_api(self, name: str, rest: list[str]) -> None:
        model = self.server.hub.models.get(name)
        if model is None:
            return self._refuse(404, "RepoNotFound")
        if len(rest) > 1 and rest[1] not in ("main", model.commit):
            return self._refuse(404, "RevisionNotFound")
        if rest[:1] == ["tree"]:
            return self._send_json([_entry(file, content) for file, content in model.files.items()])
        siblings = [{"rfilename": file} for file in model.files]
        return self._send_json({"id": name, "modelId": name, "sha": model.commit, "siblings": siblings, "tags": []})

    def _answer_file(self, name: str, revision: str, file: str) -> None:
        model = self.server.hub.models.get(name)
        if model is None:
            return self._refuse(404, "RepoNotFound")
        if revision not in ("main", model.commit):
            return self._refuse(404, "RevisionNotFound")
        if model.gated and not file.endswith(".md"):
            return self._refuse(401, "GatedRepo", model)
        if file not in model.files:
            return self._refuse(404, "EntryNotFound", model)
        if len(model.files[file]) < LARGE_BYTES:
            return self._send_file(model, file)
        headers = {
            "X-Linked-Size": str(len(model.files[file])),
            "X-Linked-ETag": _etag(model.files[file]),
            "X-Repo-Commit": model.commit,
            "Location": f"{self.server.hub.url}/large/{name}/{file}",
        }
        return self._send(302, b"", headers)

    def _send_file(self, model: Repository, file: str) -> None:
        content = model.files[file]
        self._send(200, content, {"ETag": _etag(content), "X-Repo-Commit": model.commit})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, model: Repository | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, **({"X-Repo-Commit": model.commit} if model else {})})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


def _entry(file: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    large = {"oid": digest, "size": len(content), "pointerSize": 134}
    entry = {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    return entry if len(content) < LARGE_BYTES else {**entry, "lfs": large}
