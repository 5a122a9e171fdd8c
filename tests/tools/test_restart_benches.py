"""The benches of a restart at their smallest: that they run, wherever they are started."""

import json
import subprocess
from pathlib import Path

import pytest

from dev import build

LINES = {  # The first without events, and with them.
    "restart_bench": 2 * ["disk_open", "disk_open_cpu", "disk_first_hit", "disk_memory"],
    "first_hit_bench": ["serving", "first_hit"],
}


@pytest.mark.parametrize("program", LINES)
def test_a_restart_is_measured(program: str, tmp_path: Path) -> None:
    path = build.folder("release") / "bench" / program
    command = [str(path), "--runs=1", "--blocks=1000"]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["name"] for one in found] == [f"restart.{name}" for name in LINES[program]]
    assert not list(tmp_path.iterdir())
