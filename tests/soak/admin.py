"""A running owner, asked over its socket, as its user would."""

from __future__ import annotations

import http.client
import json
import re
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

LIMIT_S = 20.0
METRIC = re.compile(r"^([a-z_]+(?:\{[^}]*\})?) ([-+0-9.e]+)$")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("terrace", timeout=LIMIT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self.path))
        except OSError:
            self.sock.close()
            raise


def _get(path: Path, what: str) -> str:
    connection = _Connection(path)
    with closing(connection):
        connection.request("GET", what)
        return connection.getresponse().read().decode()


def find(directory: Path, process: int) -> Path | None:
    """The socket of this process; those of killed ones lie there, too."""
    for path in sorted(directory.glob("*-admin.sock")):
        try:
            if json.loads(_get(path, "/status"))["process"] == process:
                return path
        except (OSError, ValueError):
            continue
    return None


def status(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_get(path, "/status"))
    return found


def values(text: str) -> dict[str, float]:
    """Prometheus text by name and labels."""
    found = {}
    for line in text.splitlines():
        match = METRIC.match(line)
        if match:
            found[match.group(1)] = float(match.group(2))
    return found


def metrics(path: Path) -> dict[str, float]:
    return values(_get(path, "/metrics"))
