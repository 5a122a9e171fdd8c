"""What users run: the self-test on a real engine, and a start from KVBM's environment alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import numbers

from engine_env import LIBRARY, ROOT, engine_env

FLAGS = ["--skip-tokenizer-init", "--enforce-eager", "--block-size", "32", "--seed", "0"]
SIZES = ["--max-model-len", "2048", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "67108864"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    harness.run(folder, "tiny.make", folder=str(folder / "llama"), kind="llama")
    return str(folder / "llama")


def test_the_selftest_passes_on_a_real_engine(model: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "terrace.cli", "selftest", "--model", model]
    env = engine_env(tmp_path) | harness.SHORTCUTS
    env["TERRACE_LIBRARY"] = os.environ.get("TERRACE_LIBRARY", str(LIBRARY))
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "python"), env["PYTHONPATH"]])
    done = subprocess.run(
        [*command, "--report", str(report), "--work", str(tmp_path), *FLAGS, *SIZES],
        env=env,
        capture_output=True,
        text=True,
        timeout=harness.LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    read: dict[str, Any] = json.loads(report.read_text())
    names = [check["name"] for check in read["checks"]]
    assert read["passed"]
    for name in ("canary", "capacity", "bytes", "host hit = own hit", "disk hit = own hit"):
        assert name in names
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("terrace-selftest-")]


@pytest.mark.parametrize(
    ("names", "tiers"),
    [
        ({"CPU_CACHE_GB": "0.1"}, {"host"}),
        ({"CPU_CACHE_GB": "0.1", "DISK_CACHE_GB": "0.2"}, {"host", "disk"}),
        ({"DISK_CACHE_GB": "0.2", "DISABLE_DISK_OFFLOAD_FILTER": "true"}, {"disk"}),
    ],
    ids=["memory", "memory and disk", "disk"],
)
def test_kvbms_configurations_start_from_its_environment_alone(
    model: str, tmp_path: Path, names: dict[str, str], tiers: set[str]
) -> None:
    environment = {f"DYN_KVBM_{name}": value for name, value in names.items()}
    if "disk" in tiers:
        (tmp_path / "disk").mkdir()
        environment["DYN_KVBM_DISK_CACHE_DIR"] = str(tmp_path / "disk")
    found = harness.run(
        tmp_path,
        "kvbm.configured",
        model=model,
        environment=environment,
        prompt=numbers(1, 300),
    )
    first, second = found["answers"]
    assert first == second
    assert found["offloaded"] > 0
    assert found["status"]["health"] == "green"
    open_tiers = {tier["tier"] for tier in found["status"]["tiers"] if tier["state"] == "open"}
    assert tiers <= open_tiers
    # KVBM's filter refuses a block at first sight; without it each one is written.
    assert (found["written"] > 0) == ("DISABLE_DISK_OFFLOAD_FILTER" in names)
