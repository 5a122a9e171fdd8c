"""What a killed session leaves behind: nothing, in /dev/shm either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sessions

# One segment that Python's tracker knows, one that it does not; a child that outlives its parent.
ENGINE = """
import os, sys, time
from multiprocessing import resource_tracker, shared_memory
tracked = shared_memory.SharedMemory(create=True, size=4096)
plain = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(plain._name, "shared_memory")
if os.fork() == 0:
    time.sleep(600)
print(tracked.name, plain.name, flush=True)
if sys.argv[1] == "stays":
    time.sleep(600)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("leader", ["stays", "has gone"])
def test_a_killed_session_leaves_no_process_and_no_shared_memory(
    leader: str, tmp_path: Path
) -> None:
    program = tmp_path / "engine.py"
    program.write_text(ENGINE)
    process = subprocess.Popen(
        [sys.executable, str(program), leader],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    names = process.stdout.readline().split()
    made = [Path(sessions.SEGMENTS) / name for name in names]
    assert len(made) == 2
    if leader == "has gone":
        process.wait(timeout=60)
    assert sessions.living(process.pid), "the child outlives its parent"
    sessions.kill(process.pid)
    process.wait(timeout=60)
    process.stdout.close()
    assert sessions.living(process.pid) == {}
    assert [path for path in made if path.exists()] == []


def test_a_session_that_has_ended_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait(timeout=60)
    sessions.kill(process.pid)
