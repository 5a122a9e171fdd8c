"""A campaign that is ended from outside leaves no server behind, whoever the signal went to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.vllm.engine import until

import sessions
from engine_env import ROOT

# Two processes in a session, as deaf as an engine that hangs; their output is their ids.
SERVER = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
print(os.getpid(), flush=True)
time.sleep(600)
"""

# A real campaign around it: its users wait for answers that do not come.
SOAK = f"""
import os, sys
from pathlib import Path
from tests.soak import soak
from tests.soak.campaign import Options
from tests.soak.place import Refused
from tests.tools.soak_stand_in import StandIn, StandInClock, turns
from demo.server import Server

class Busy(StandIn):
    def start(self):
        super().start()
        command = [sys.executable, "-c", {SERVER!r}]
        self.server = Server(command, dict(os.environ), Path("log"), 0)
    def _take(self, prompt):
        Path("asked").touch()
        self.server.process.wait()
        raise Refused("it is gone")
    def close(self):
        self.server.kill()

known = turns()
place = Busy(known, StandInClock())
sys.exit(soak.ended(lambda: soak.run(place, known, Options(seed=1, seconds=400.0, users=2)) and 0))
"""

# Nobody ends its server but the campaign itself: it was interrupted before it had a name.
UNNAMED = f"""
import os, sys, time
from pathlib import Path
from tests.soak import soak
from demo.server import Server

def main():
    Server([sys.executable, "-c", {SERVER!r}], dict(os.environ), Path("log"), 0)
    Path("asked").touch()
    time.sleep(600)

sys.exit(soak.ended(main))
"""

# As `./dev campaign` starts one.
DEV = """
import sys
from dev import run
run.shown([sys.executable, "campaign.py"], cwd=".")
"""


def start(folder: Path, program: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    return subprocess.Popen(
        [sys.executable, program], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    )


# A terminal sends SIGINT to both.
@pytest.mark.parametrize(
    ("number", "is_by_dev"),
    [
        (signal.SIGTERM, False),
        (signal.SIGTERM, True),
        (signal.SIGHUP, True),
        (signal.SIGINT, False),
    ],
)
@pytest.mark.parametrize("campaign", [SOAK, UNNAMED], ids=["under load", "without a name"])
def test_a_signal_leaves_nothing_running(
    number: signal.Signals, campaign: str, is_by_dev: bool, tmp_path: Path
) -> None:
    (tmp_path / "campaign.py").write_text(campaign)
    (tmp_path / "start.py").write_text(DEV)
    log = tmp_path / "log"
    process = start(tmp_path, "start.py" if is_by_dev else "campaign.py")
    session = 0
    try:
        until("a server", lambda: log.exists() and log.read_text().count("\n") == 2)
        until("its first request", (tmp_path / "asked").exists)
        session = os.getsid(int(log.read_text().split()[0]))
        assert len(sessions.living(session)) == 2
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert sessions.living(session) == {}, output
        assert "interrupted; nothing of it goes on" in output
    finally:
        process.kill()
        process.wait()
        if session:
            sessions.kill(session)
