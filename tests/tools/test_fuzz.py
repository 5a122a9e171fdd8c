"""./dev campaign fuzz counts what a target did, and takes no bad end for a good one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import campaign
from tests.integration.vllm.engine import until

from engine_env import ROOT

GOOD = """#!/bin/sh
echo "#7	NEW    cov: 12 ft: 3 corp: 1/1b" >&2
echo "#90	DONE   cov: 34 ft: 9 corp: 2/2b" >&2
echo "stat::number_of_executed_units: 90" >&2
"""
BAD = (
    GOOD
    + """
for word; do
  case $word in -artifact_prefix=*) echo x > "${word#*=}crash-1";; esac
done
"""
)


def build(tmp_path: Path, script: str) -> Path:
    folder = tmp_path / "fuzz"
    folder.mkdir()
    for name, text in (("fuzz_x", script), ("write_seeds", '#!/bin/sh\nmkdir -p "$1/x"\n')):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return tmp_path


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, *more: str) -> int:
    words = ["campaign.py", "--build", str(build(tmp_path, script)), "--minutes", "1", *more]
    monkeypatch.setattr("sys.argv", words)
    return campaign.main()


def test_a_good_end_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, GOOD) == 0
    assert "| x | 90 | 34 | 0.0 | 0 |" in capsys.readouterr().out


@pytest.mark.parametrize("script", [BAD, BAD + "exit 77\n", GOOD + "exit 1\n", "#!/bin/sh\n"])
def test_every_other_end_is_a_finding(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
) -> None:
    assert run(tmp_path, monkeypatch, script) == 1
    assert capsys.readouterr().out.rstrip().endswith("| 1 |")


def test_an_unknown_target_names_the_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, GOOD, "--target", "y") == 2
    assert "no target y; known are x" in capsys.readouterr().out


def test_a_kill_ends_the_target_that_runs(tmp_path: Path) -> None:
    sleeper = f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n"
    program = str(Path(campaign.__file__))
    process = subprocess.Popen(
        [sys.executable, program, "--build", str(build(tmp_path, sleeper))],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tools")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = tmp_path / "pid"
    until("the target runs", lambda: told.exists() and told.read_text().endswith("\n"))
    target = int(told.read_text())
    try:
        process.terminate()
        assert process.wait(timeout=60) != 0
        with pytest.raises(ProcessLookupError):
            os.kill(target, 0)
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
