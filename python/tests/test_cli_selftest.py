"""`terrace selftest` believes counters and bits, not words: whatever is wrong fails it."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev import build
from terrace.cli import program, selftest
from terrace.cli.selftest_engine import CORRUPT, DISK, HOST, SETTINGS

SIZE = 32
LENGTHS = [SIZE * 6 - 1, SIZE * 6, SIZE * 6 + 1]
HITS = [(length - 1) // SIZE * SIZE for length in LENGTHS]
PROMPTS = [[7] * length for length in LENGTHS]
FACTS = {"blocks": 100, "block_tokens": SIZE}


def answers(counter: str = "", served: list[int] | None = None) -> list[dict[str, Any]]:
    return [
        {
            "tokens": [number, 1],
            "logprobs": [[[number, -0.5]]],
            "seconds": 1.0,
            "grown": {counter: hit} if counter else {},
            "first_miss": None,
        }
        for number, hit in enumerate(served or [0, 0, 0])
    ]


def healthy() -> dict[str, dict[str, Any]]:
    digests = [["a", "b"], [None, "c"]]
    flipped = answers(DISK, [0, *HITS[1:]])
    flipped[0]["grown"][CORRUPT] = 1
    prompts = {"prompts": PROMPTS, "block_tokens": SIZE}
    return {
        "own": {"cold": answers(), "local": answers(), "again": answers(), "facts": FACTS},
        "store": {
            "cold": answers(),
            "host": answers(HOST, HITS),
            "bytes": [[digests, digests]],
            "facts": FACTS,
            "status": {"ready": True},
        },
        "restart": {"disk": answers(DISK, HITS)} | prompts,
        "flipped": {"disk": flipped} | prompts,
    }


def judge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: dict[str, dict[str, Any]]
) -> selftest.Report:
    monkeypatch.setattr(selftest, "run_step", lambda _work, step, _flags: steps[step])
    monkeypatch.setattr(selftest, "_flip", lambda *_: None)
    report = selftest.Report("M", [])
    selftest.run(report, tmp_path)
    return report


def test_a_healthy_engine_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = judge(monkeypatch, tmp_path, healthy())
    assert report.passed, report.checks
    assert report.ratios["host_hit_to_own_hit"] == 1.0


def change(step: str, name: str, **fields: Any) -> Callable[[dict[str, dict[str, Any]]], None]:
    def apply(steps: dict[str, dict[str, Any]]) -> None:
        steps[step][name][0] = steps[step][name][0] | fields

    return apply


def set_to(step: str, name: str, value: Any) -> Callable[[dict[str, dict[str, Any]]], None]:
    def apply(steps: dict[str, dict[str, Any]]) -> None:
        steps[step][name] = value

    return apply


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (change("store", "host", tokens=[9, 9]), "host hit = own hit"),
        (change("store", "host", logprobs=[[[0, -0.6]]]), "host hit = own hit"),
        (change("store", "host", grown={}), "host served"),
        (change("store", "host", grown={HOST: HITS[0] + SIZE}), "host served"),
        (set_to("store", "bytes", [[[["a"]], [["b"]]]]), "bytes"),
        (set_to("store", "bytes", [[[[None]], [["b"]]]]), "bytes"),
        (set_to("store", "facts", FACTS | {"blocks": 50}), "capacity"),
        (set_to("store", "status", {"ready": False}), "canary"),
        (change("restart", "disk", tokens=[9, 9]), "disk hit = own hit"),
        (change("restart", "disk", grown={}), "disk served"),
        (change("flipped", "disk", tokens=[9, 9]), "answer after damage"),
        (change("flipped", "disk", grown={DISK: HITS[0], CORRUPT: 1}), "damage not served"),
        (change("flipped", "disk", grown={}), "damage counted"),
        (set_to("store", "refused", True), "served"),
    ],
)
def test_whatever_is_wrong_is_named(
    fault: Callable[[dict[str, dict[str, Any]]], None],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    steps = copy.deepcopy(healthy())
    fault(steps)
    report = judge(monkeypatch, tmp_path, steps)
    failed = [check["name"] for check in report.checks if not check["passed"]]
    assert named in failed


def test_where_the_engine_does_not_repeat_itself_tokens_alone_decide(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = healthy()
    steps["own"]["again"][1]["logprobs"] = [[[1, -0.51]]]
    steps["store"]["host"][0]["logprobs"] = [[[0, -0.52]]]
    assert judge(monkeypatch, tmp_path, steps).passed


def test_without_an_engine_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    report = tmp_path / "report.json"
    assert selftest.main(["--model", "M", "--report", str(report)]) == 1
    assert "vLLM is not installed" in capsys.readouterr().err
    assert not report.exists()


def test_an_engine_that_does_not_start_fails_with_its_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    report = tmp_path / "report.json"
    code = selftest.main(["--model", "/nowhere", "--report", str(report), "--work", str(tmp_path)])
    assert code == 1
    read = json.loads(report.read_text())
    assert not read["passed"]
    output = read["checks"][-1]["detail"].rsplit(" ", 1)[-1]
    assert Path(output).is_file(), capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "place"), [("--work", "absent"), ("--report", "absent/report"), ("--report", ".")]
)
def test_where_nothing_can_be_written_is_said_before_any_engine_starts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    place: str,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(selftest, "run", lambda *_: pytest.fail("an engine was started"))
    assert selftest.main(["--model", "m", flag, str(tmp_path / place)]) == 1
    assert f"terrace selftest: {flag} " in capsys.readouterr().err


def test_a_store_of_the_environment_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", str(build.folder("release") / "bin" / "terrace"))
    monkeypatch.setenv("TERRACE_OBJECT_PATH", "/tmp")
    monkeypatch.setenv("TERRACE_OBJECT_ENABLED", "true")
    asked = [str(program.find()), "config", "--json", "--engine", json.dumps(SETTINGS)]
    found = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)["settings"]
    assert (found["object.path"]["value"], found["object.enabled"]["value"]) == ("", "false")
