"""./dev clean --all leaves nothing of ours, in no folder, and touches nothing else."""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import engine_env
from demo.server import end_left_behind
from dev import clean, main, paths, store

KEY = "0123456789abcdef"
OURS = (f"venv-{KEY}", f"model-{KEY}.part-77", f"venv-{KEY}.removed-1", "wheels-venv", "ccache")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, a cache folder and a temporary folder, each with something of ours."""
    cache, root, temporary = tmp_path / "cache", tmp_path / "root", tmp_path / "tmp"
    for name in OURS:
        (cache / name).mkdir(parents=True)
        (cache / name / "file").touch()
    (cache / "venv.lock").touch()
    (cache / "passed" / "tidy").mkdir(parents=True)
    (root / "build" / "demo").mkdir(parents=True)
    (root / "tests" / "__pycache__").mkdir(parents=True)
    temporary.mkdir()
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(cache))
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "BUILD", root / "build")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    # These tests remove things: nothing of the real machine may be within reach.
    for path in (paths.cache(), paths.ROOT, paths.BUILD, engine_env.scratch()):
        assert path.is_relative_to(tmp_path)
    engine_env.scratch_environment()
    return tmp_path


def left(machine: Path) -> list[str]:
    return sorted(str(path.relative_to(machine)) for path in machine.rglob("*"))


def test_all_removes_what_is_ours(machine: Path) -> None:
    assert main.main(["clean", "--all"]) == 0
    assert left(machine) == ["root", "root/tests", "tmp"]


def test_what_setup_makes_is_what_clean_knows(machine: Path) -> None:
    def make(part: Path, _final: Path) -> None:
        (part / "a").touch()

    store.ensure("venv", store.key_of("a"), make)
    store.ensure("model", store.key_of("b"), make)
    for kind in ("services", "prometheus", "chromium", "gemma", "peers"):
        store.ensure(kind, store.key_of(kind), make)
        (paths.cache() / f"wheels-{kind}").mkdir()
    main.main(["clean", "--all"])
    assert not (machine / "cache").exists()


def test_it_waits_for_another_run_that_makes_an_entry(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: object, _flags: int) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(store, "LOCK_WAIT_S", -1.0)
    assert main.main(["clean", "--all"]) == 1
    assert (machine / "cache" / f"venv-{KEY}.removed-1").exists()


def test_what_others_put_beside_it_stays(machine: Path) -> None:
    names = ("venv-mine", "poetry.lock", "wheels-of-cheese", "models")
    for name in names:
        (machine / "cache" / name).touch()
    main.main(["clean", "--all"])
    assert {path.name for path in (machine / "cache").iterdir()} == set(names)


def test_without_all_only_build_goes(machine: Path) -> None:
    before = set(left(machine))
    assert main.main(["clean"]) == 0
    assert before - set(left(machine)) == {"root/build", "root/build/demo"}


def test_an_unknown_word_removes_nothing(machine: Path) -> None:
    before = left(machine)
    assert main.main(["clean", "--everything"]) == 1
    assert left(machine) == before


def test_a_server_of_the_demo_that_still_runs_is_ended(machine: Path) -> None:
    log = machine / "root" / "build" / "demo" / "engine.log"
    with log.open("w") as sink:
        command = [sys.executable, "-c", "print('up', flush=True); input()"]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sink)
    assert clean.main([]) == 0
    assert server.wait(timeout=60) < 0
    assert not log.exists()


def test_one_that_ignores_the_first_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.server.END_LIMIT_S", 0.3)
    program = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); input()"
    log = tmp_path / "engine.log"
    os.mkfifo(log)
    server = subprocess.Popen(
        f"exec {sys.executable} -c \"{program}\" > '{log}'", shell=True, stdin=subprocess.PIPE
    )
    with log.open() as source:
        assert source.readline() == "up\n"  # from here on it ignores the signal
        assert end_left_behind(log) == 1
    assert server.wait(timeout=60) == -9
