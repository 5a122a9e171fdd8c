"""`terrace object gc` on a bucket of a real server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from engine_env import ROOT
from s3_server import BUCKET, KEY, SECRET, S3Server, s3_server

PROGRAM = ROOT / "build" / "release" / "bin" / "terrace"
LIMIT_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("gc")) as made:
        yield made


def collect(server: S3Server, *words: str, secret: str = SECRET) -> tuple[int, dict[str, Any], str]:
    settings = {
        "TERRACE_OBJECT_ENABLED": "true",
        "TERRACE_OBJECT_BUCKET": BUCKET,
        "TERRACE_OBJECT_ENDPOINT": server.endpoint,
        "TERRACE_OBJECT_PREFIX": "kv",
        "TERRACE_OBJECT_ACCESS_KEY": KEY,
        "TERRACE_OBJECT_SECRET_KEY": secret,
    }
    ran = subprocess.run(
        [str(PROGRAM), "object", "gc", "--json", *words],
        env={"HOME": os.environ.get("HOME", "/"), **settings},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return ran.returncode, json.loads(ran.stdout) if ran.stdout else {}, ran.stderr


def pack(number: int) -> str:
    return f"kv/v1/{5:032x}/g0/n16/00/{number:032x}.pack"


def test_packs_over_the_bound_are_removed_and_nothing_else(server: S3Server) -> None:
    for number in range(1200):  # More than a page.
        server.put_empty(pack(number))
    server.put_empty("kv/v1/notes")
    server.put_empty("other/file")
    code, told, error = collect(server, "--dry-run", "--set", "object.blocks=160")
    assert (code, error) == (0, "")
    assert told["found"] == {"packs": 1200, "blocks": 19200, "bytes": 0}
    assert told["too_many"]["packs"] == 1190
    code, done, error = collect(server, "--set", "object.blocks=160", "--rate", "2000")
    assert (code, done["error"]) == (0, None), error
    assert done["removed"] == 1190
    assert done["foreign"] == 1
    code, left, _ = collect(server)
    assert (code, left["found"]["packs"], left["foreign"]) == (0, 10, 1)


def test_wrong_keys_are_said(server: S3Server) -> None:
    code, told, error = collect(server, "--set", "object.blocks=16", secret="wrong")
    assert code == 1
    assert "403" in error
    assert told["error"]
