"""Where a Ray cluster is, and whether it answers; does not import ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

LOCAL = "local"
_SECONDS_TO_CONNECT = 5.0
_SECONDS_TO_ANSWER = 30.0
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"
# Ray takes the loopback address where clusters are switched off, as by default on macOS and Windows.
_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def find_cluster(given: str | None) -> str:
    """The address of the cluster: `given`, that of RAY_ADDRESS, or `local`, which listens on this machine only.

    Call it before ray is imported.

    Raises:
        ConnectionError: when there is no cluster at the address, or it does not let this machine join.
    """
    address = given or os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL:
        os.environ.setdefault(*_LOOPBACK)
        return address
    if address != "auto":
        _check_open(address)
    _check_joins(address)
    return address


def _check_open(address: str) -> None:
    """Refuse an address where nothing listens: Ray would try for minutes."""
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ConnectionError("must be auto, local, host:port or ray://host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers there: {error.strerror or error}") from None


def _check_joins(address: str) -> None:
    """Refuse a cluster that cannot be joined; tried in another process, as Ray can neither be stopped nor be quiet."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise ConnectionError(_why(f"no answer of Ray within {_SECONDS_TO_ANSWER:g} s", said)) from None
    if tried.returncode:
        raise ConnectionError(_why("cannot be joined", tried.stderr))


def _why(what: str, said: str) -> str:
    """`what`, with the last line that Ray `said`; a cluster that wants a token says so in many ways."""
    last = said.strip().rpartition("\n")[2]
    token = any(word in said.lower() for word in ("auth_token", "unauthenticated", "authentication", "auth mode"))
    hint = "; it wants its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH" if token else ""
    return f"{what}: {last:.300}{hint}" if last else f"{what}{hint}"
