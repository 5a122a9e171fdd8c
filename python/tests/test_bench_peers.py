"""`./dev bench peers`: lines as promised, a check that can fail, a peer that dies is told."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from bench.peers import peer, peers

from engine_env import LIBRARY, ROOT


class Fake:
    """A side that answers at once, and notes what it was told."""

    def __init__(self, rate: float) -> None:
        self.told: list[str] = []
        self._rate = rate

    def rate(self, verb: str) -> float:
        self.told.append(verb)
        return self._rate


@pytest.fixture
def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    ours, other = Fake(3e9), Fake(2e9)
    peers.compare(cast(Any, ours), cast(Any, other), "nixl", 3 << 20, "cached", "threads")
    assert ours.told == [
        verb for verb in ("plain", "read", "read", "write", "write") for _ in range(peers.RUNS + 1)
    ]
    assert set(other.told) == {"read", "checked", "write", "synced"}
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_comparison_is_a_line_with_its_ratio(rows: list[dict[str, Any]]) -> None:
    assert [row["name"] for row in rows] == ["peers.nixl.read"] * 3 + ["peers.nixl.write"] * 2
    assert [row["params"]["checks"] for row in rows[:3]] == ["none", "terrace", "both"]
    assert [row["params"]["synced"] for row in rows[3:]] == ["terrace", "both"]
    for row in rows:
        assert row["ratio"] == pytest.approx(1.5)
        assert row["runs"] == peers.RUNS
        assert row["limit_name"] == "NIXL 1.5.1 POSIX"
        assert row["params"]["page_cache"] is True
        assert row["params"]["backend"] == "threads"
        assert row["params"]["blocks"] * row["params"]["piece_bytes"] <= peers.MEBIBYTES << 20


def test_the_names_of_the_peers_have_the_locked_versions() -> None:
    lock = (ROOT / "requirements" / "peers.txt").read_text()
    for name, package in (("lmcache", "lmcache"), ("nixl", "nixl-cu12")):
        assert f"{package}=={peers.PEERS[name].split()[1]} " in lock


def test_a_side_that_ends_is_told_with_its_words(tmp_path: Path) -> None:
    program = "import sys; print('ready', flush=True); sys.exit('no such disk')"
    with (
        peers.side([sys.executable, "-c", program], tmp_path / "log") as made,
        pytest.raises(RuntimeError, match="no such disk"),
    ):
        made.rate("read")


def test_other_bytes_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TERRACE_LIBRARY", str(LIBRARY))
    block = ctypes.create_string_buffer(bytes(peer.content(1, 4096)), 4096)
    checksums = peer.Checksums(4096)
    checksums.keep(1, ctypes.addressof(block))
    checksums.compare(1, ctypes.addressof(block))
    block[77] = bytes([block.raw[77] ^ 1])
    with pytest.raises(RuntimeError, match="block 1"):
        checksums.compare(1, ctypes.addressof(block))


def test_without_the_peers_folder_it_says_how_to_run_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(peers.VARIABLE, raising=False)
    assert peers.main() == 1
    assert "./dev bench peers" in capsys.readouterr().err
