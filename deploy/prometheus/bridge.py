#!/usr/bin/env python3
"""Lets Prometheus reach owners that answer on Unix sockets: one TCP port on this machine for all.

GET /targets is Prometheus' HTTP service discovery, GET /metrics?engine=NAME the metrics of one
owner. It reads nothing else and changes nothing: other requests of an owner's socket do not pass.
Run it as the engines' user; it needs Python 3.9 and nothing besides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PATIENCE_S = 5.0
LARGEST_ANSWER = 4 << 20
SOCKET = re.compile(r"([0-9a-f]{24})-admin\.sock")


def default_directory() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "terrace" if runtime else Path(f"/tmp/terrace-{os.getuid()}")


class Connection(http.client.HTTPConnection):
    """HTTP over an owner's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("terrace", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def ask(path: Path, what: str) -> bytes:
    """An owner's answer; OSError where there is none."""
    connection = Connection(path)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        content = answer.read(LARGEST_ANSWER)
        if answer.status != 200:
            raise OSError(f"{path.name}: {what}: {answer.status}")
        return content
    except http.client.HTTPException as error:
        raise OSError(f"{path.name}: {what}: {error}") from error
    finally:
        connection.close()


def sockets(directory: Path) -> dict[str, Path]:
    """Name -> path of the owners' sockets; none where there is no such directory."""
    try:
        found = ((SOCKET.fullmatch(path.name), path) for path in directory.iterdir())
        return {match[1]: path for match, path in found if match}
    except OSError:
        return {}


def targets(directory: Path, address: str) -> list[dict[str, object]]:
    """One target for each owner that answers, with its engine's id as a label."""
    found: list[dict[str, object]] = []
    for name, path in sorted(sockets(directory).items()):
        try:
            engine = str(json.loads(ask(path, "/status"))["engine"])
        except (OSError, ValueError, KeyError):
            continue  # It has ended, or just begins: the next question will find it.
        found.append({"targets": [address], "labels": {"engine": engine, "__param_engine": name}})
    return found


class Bridge(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], directory: Path) -> None:
        super().__init__(address, Handler)
        self.directory = directory


class Handler(BaseHTTPRequestHandler):
    server: Bridge
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/targets":
            host, port = self.connection.getsockname()[:2]
            address = self.headers.get("Host") or f"{host}:{port}"
            found = json.dumps(targets(self.server.directory, address)).encode()
            self._answer(200, found, "application/json")
            return
        name = parse_qs(asked.query).get("engine", [""])[0]
        path = sockets(self.server.directory).get(name)
        if asked.path != "/metrics" or path is None:
            self._answer(404, b"ask for /targets, or for /metrics?engine=NAME as it says\n")
            return
        try:
            self._answer(200, ask(path, "/metrics"))
        except OSError as error:
            self._answer(503, f"{error}\n".encode())

    def _answer(self, code: int, content: bytes, kind: str = "text/plain; version=0.0.4") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing for each request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--listen", default="127.0.0.1:6880", help="address and port; 0 = any port")
    parser.add_argument("--directory", type=Path, default=default_directory())
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    server = Bridge((host, int(port)), options.directory)
    print(f"listening on {host}:{server.server_port}, owners in {options.directory}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
