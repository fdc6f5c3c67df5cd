"""A Hub on this machine: as much of its HTTP interface as huggingface_hub uses to push and pull small files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "0123456789" * 4


class LocalHub:
    """Has one repository, `me/cart`, with `files`; `announced` are sizes that differ from theirs."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, int] = {}
        self.exists = True
        self.refuses: int | None = None
        self.revisions = {"main", SHA}
        self.created: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(f"{method} {path}")
        if self.refuses is not None:
            return self.refuses, {"X-Error-Message": "not today\nat all"}, b"{}"
        if path == "/api/agent-harnesses":
            return 404, {}, b""
        if path == "/api/validate-yaml":
            return 200, {}, b'{"errors": [], "warnings": []}'
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            self.exists = True
            return 200, {}, json.dumps({"url": f"{self.url}/me/cart"}).encode()
        if not self.exists:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if path.startswith("/me/cart/resolve/"):
            return self._file(path.split("/", 5)[5])
        if path == "/api/models/me/cart":
            path += "/revision/main"
        what, _, revision = path.removeprefix("/api/models/me/cart/").partition("/")
        if revision not in self.revisions:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        return 200, {}, json.dumps(self._of_repo(what, body)).encode()

    def _of_repo(self, what: str, body: bytes) -> Any:
        sizes = {name: len(data) for name, data in self.files.items()} | self.announced
        if what == "revision":
            return {"id": "me/cart", "sha": SHA, "siblings": [{"rfilename": n, "size": s} for n, s in sizes.items()]}
        if what == "tree":
            return [{"type": "file", "path": name, "size": size, "oid": SHA} for name, size in sizes.items()]
        if what == "preupload":
            paths = [each["path"] for each in json.loads(body)["files"]]
            return {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
        assert what == "commit"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[line["value"]["path"]]
        return {"success": True, "commitOid": SHA, "commitUrl": f"{self.url}/me/cart/commit/{SHA}"}

    def _file(self, name: str) -> tuple[int, dict[str, str], bytes]:
        if name not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data = self.files[name]
        return 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": SHA}, data


@contextlib.contextmanager
def serving(hub: LocalHub) -> Iterator[str]:
    """Serve `hub` on the loopback; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, data = hub.answer(self.command, unquote(urlsplit(self.path).path), body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value.replace("\n", " "))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = respond

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub.url
        server.shutdown()
        thread.join()
