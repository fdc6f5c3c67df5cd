"""The server of the page: only GET, only what the page needs, and only for those who name this machine."""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from esper.analysis.charts import library, scripts
from esper.analysis.page import POLICY, embedded
from esper.analysis.page import asset as shared
from esper.watch.followed import POINTS, FollowedRuns

# A request answers after about so long: what is not read until then comes with the next one.
_LOOK_SECONDS = 0.5
# Of a page in one file: in all runs, and in each. A point is about 120 bytes.
_MOST_POINTS, _FEWEST_POINTS = 100_000, 200
_HEADERS = {
    # Plotly's styles are inline.
    "Content-Security-Policy": POLICY.format("script-src 'self'; connect-src 'self'") + "; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"}


class WatchServer(ThreadingHTTPServer):
    """Serves `runs` at `host` and `port`, of which 0 is any free one.

    Raises:
        OSError: when it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, runs: FollowedRuns) -> None:
        self.runs, self.lock = runs, threading.Lock()
        self.files = {"/": ("html", asset("page.html"))} | {
            f"/{name}": (name.partition(".")[2], asset(name)) for name in ("watch.css", "watch.js")
        }
        self.files |= {f"/{name}": (name.partition(".")[2], shared(name)) for name in ("page.css", "charts.js")}
        self.files["/plotly.js"] = ("js", library())
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        bound = ipaddress.ip_address(self.server_address[0])  # type: ignore[arg-type]
        self._is_loopback, self._is_any, self._named = bound.is_loopback, bound.is_unspecified, {host, str(bound)}
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self._is_loopback

    def takes(self, header: str | None) -> bool:
        """Whether a request with this Host `header` is answered.

        A page of someone else whose name is made to lead here, by DNS rebinding, sends its own name. The port may be
        another one, as of a tunnel.
        """
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        if name in self._named or (self._is_loopback and name == "localhost"):
            return True
        return self._is_any and (name in ("localhost", socket.gethostname().lower()) or _is_address(name))

    def server_bind(self) -> None:
        # HTTPServer's asks for the name of the address, which takes long where no one knows it.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that has gone is no error.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = 30

    def do_GET(self) -> None:
        if not self.server.takes(self.headers.get("Host")):
            return self._send(403, "text/plain", "esper watch answers only to its own address")
        address = urlsplit(self.path)
        if address.path in self.server.files:
            kind, text = self.server.files[address.path]
            return self._send(200, _TYPES[kind], text)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        answer = {"/api/runs": self._runs, "/api/run": self._run}.get(address.path)
        found = answer(query) if answer is not None else None
        if found is None:
            return self._send(404, "text/plain", "there is no such page")
        return self._send(200, _TYPES["json"], json.dumps(found, allow_nan=False))

    def _runs(self, query: Mapping[str, str]) -> Any:
        with self.server.lock:
            self.server.runs.look(_LOOK_SECONDS)
            return self.server.runs.rows()

    def _run(self, query: Mapping[str, str]) -> Any:
        with self.server.lock:
            self.server.runs.look(_LOOK_SECONDS)
            run = self.server.runs.named(query.get("name", ""))
            if run is None:
                return None
            run.read(time.monotonic() + _LOOK_SECONDS)
            return run.since(query.get("since", ""))

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode(errors="replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "max-age=86400" if self.path == "/plotly.js" else "no-store")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def version_string(self) -> str:
        return "esper"

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: the page asks every two seconds."""


def asset(name: str) -> str:
    """A file of the page."""
    return (resources.files("esper.watch") / name).read_text("utf-8")


def page_of(runs: FollowedRuns) -> str:
    """The page as it stands, as one file that needs no server."""
    runs.look()
    rows = runs.rows()
    points = min(POINTS, max(_FEWEST_POINTS, _MOST_POINTS // max(1, len(rows))))
    whole = {
        "runs": rows,
        "run": {row["name"]: run.since("", points) for row in rows if (run := runs.named(row["name"]))},
    }
    # No text in it can end the element.
    data = json.dumps(whole, allow_nan=False).replace("<", "\\u003c")
    policy, code = embedded((*scripts(), asset("watch.js")))
    parts = {
        '<meta charset="utf-8">': f'<meta charset="utf-8">{policy}',
        '<link rel="stylesheet" href="page.css">': f"<style>{shared('page.css')}</style>",
        '<link rel="stylesheet" href="watch.css">': f"<style>{asset('watch.css')}</style>",
        '<script src="plotly.js"></script>': f'<script type="application/json" id="data">{data}</script>',
        '<script src="charts.js"></script>': code,
        '<script src="watch.js"></script>': "",
    }
    made = asset("page.html")
    for written, part in parts.items():
        before, found, after = made.partition(written)
        assert found, written
        made = before + part + after
    return made


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
