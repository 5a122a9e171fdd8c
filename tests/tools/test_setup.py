"""Set-up says early why it cannot work, locks are whole, the engine's environment is closed."""

import os
import re
import shutil
from pathlib import Path

import pytest

import engine_env
import lock
from dev import apt, host, main, paths, run, setup, venv
from dev.verbs import VERBS

GOOD = host.Host(
    machine="x86_64", cpus=4, flags=frozenset({"avx2", "avx512f"}), memory=16 * host.GIB
)


def test_a_good_machine_has_no_problems() -> None:
    assert host.problems(GOOD) == []


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (host.Host("aarch64", 4, frozenset({"avx2"}), 16 * host.GIB), "aarch64"),
        (host.Host("x86_64", 4, frozenset({"sse4_2"}), 16 * host.GIB), "AVX2"),
        (host.Host("x86_64", 4, frozenset({"avx2"}), 2 * host.GIB), "memory"),
    ],
)
def test_each_lack_is_named(bad: host.Host, word: str) -> None:
    problems = host.problems(bad)
    assert len(problems) == 1
    assert word in problems[0]


def test_folders_on_one_disk_add_up(tmp_path: Path) -> None:
    half = shutil.disk_usage(tmp_path).free * 0.6
    assert host.disk_problems({tmp_path / "a": half}) == []
    found = host.disk_problems({tmp_path / "a": half, tmp_path / "b": half})
    assert len(found) == 1
    assert "TERRACE_CACHE_DIR" in found[0]


def test_a_container_has_the_memory_that_its_groups_allow(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "flags\t: avx2\n",
        "proc/meminfo": f"MemTotal: {16 << 20} kB\n",
        "proc/self/cgroup": "4:memory:/a/b\n0::/c\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{3 * host.GIB}\n",
        "sys/fs/cgroup/c/memory.max": "max\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert host.read(tmp_path).memory == 3 * host.GIB
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2 * host.GIB}\n")
    assert host.read(tmp_path).memory == 2 * host.GIB
    (tmp_path / "proc/self/cgroup").unlink()
    assert host.read(tmp_path).memory == 16 * host.GIB


def test_a_folder_that_cannot_be_made_or_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, file, closed = tmp_path / "a" / "b", tmp_path / "file", tmp_path / "closed"
    file.touch()
    closed.mkdir()
    # Root, as whom tests may run, is refused nothing.
    monkeypatch.setattr(os, "access", lambda path, _mode: path != closed)
    assert host.folder_problems({good: "x"}) == []
    for folder, reason in {
        file: f"{file} is no folder",
        file / "below": f"{file} is no folder",
        closed / "below": f"may not write to {closed}",
    }.items():
        found = host.folder_problems({good: "x", folder: "the way out"})
        assert len(found) == 1
        assert found[0].startswith(str(folder))
        assert reason in found[0]
        assert found[0].endswith("the way out")


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = host.Host("x86_64", 1, frozenset(), host.GIB)
    what = setup.Plan(packages=["cmake"], environment=True, model=True)
    monkeypatch.setattr(apt, "is_there", lambda: False)
    found = "\n".join(setup.problems(what, bad))
    assert "AVX2" in found
    assert "memory" in found
    assert "apt-get" in found
    assert "cmake" in found


def test_missing_packages_without_root_name_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    what = setup.Plan(packages=["cmake"], environment=False, model=False)
    monkeypatch.setattr(apt, "is_there", lambda: True)
    monkeypatch.setattr(apt, "may_install", lambda: False)
    found = setup.problems(what, GOOD)
    assert any("apt-get install --no-install-recommends cmake" in text for text in found)


def test_the_demo_installs_no_clang() -> None:
    assert not [name for name in apt.packages(setup.ENGINE) if "clang" in name]
    assert [name for name in apt.packages(["check"]) if "clang" in name]


@pytest.mark.parametrize("name", lock.NAMES)
def test_locks_hold_exactly_the_pins_each_with_a_hash(name: str) -> None:
    pins = dict(lock.read_pins(paths.REQUIREMENTS / f"{name}.in"))
    text = (paths.REQUIREMENTS / f"{name}.txt").read_text()
    rows = [row for row in text.splitlines() if not row.startswith("#")]
    locked = {}
    for row in rows:
        match = re.fullmatch(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}", row)
        assert match is not None, row
        locked[match[1]] = match[2]
    assert locked == pins


def test_torch_is_pinned_to_the_cpu_build() -> None:
    pins = dict(lock.read_pins(paths.REQUIREMENTS / "torch.in"))
    assert pins == {"torch": venv.TORCH_VERSION}


def test_a_loose_pin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.in"
    path.write_text("numpy==2.3.5\nrequests>=2\n")
    with pytest.raises(lock.LockError, match=r"a\.in:2: 'requests>=2'"):
        lock.read_pins(path)


def test_the_environment_is_keyed_by_its_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in venv.LOCKS:
        (tmp_path / f"{name}.txt").write_text(name)
    monkeypatch.setattr(paths, "REQUIREMENTS", tmp_path)
    before = venv.key()
    assert venv.key() == before
    (tmp_path / "tools.txt").write_text("changed")
    assert venv.key() != before


def test_engine_environment_lies_inside_the_work_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_USE_SOMETHING", "1")
    monkeypatch.setenv("TERRACE_HOST_SIZE", "1GiB")
    monkeypatch.setenv("DYN_KVBM_CPU_CACHE_GB", "1")
    env = engine_env.engine_env(tmp_path)
    assert not {"VLLM_USE_SOMETHING", "TERRACE_HOST_SIZE", "DYN_KVBM_CPU_CACHE_GB"} & set(env)
    assert env["HF_HUB_OFFLINE"] == "1"
    for name in ("HF_HOME", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "XDG_CACHE_HOME"):
        assert Path(env[name]).is_relative_to(tmp_path)
        assert Path(env[name]).is_dir()
    assert env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert (
        engine_env.engine_env(tmp_path, multiprocessing=True)["VLLM_ENABLE_V1_MULTIPROCESSING"]
        == "1"
    )


def test_sockets_fit_in_the_engines_scratch_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    env = engine_env.engine_env(deep)
    assert len(env["TMPDIR"]) <= engine_env.LONGEST_TMPDIR


def test_bare_dev_explains_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 0
    page = capsys.readouterr().out
    for verb in VERBS:
        assert f"./dev {verb}" in page


def test_an_unknown_verb_names_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["fly"]) == 2
    assert "known are: setup, demo, test" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--helpme", "fly"])
def test_setup_changes_nothing_for_a_word_that_it_does_not_know(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "require", lambda *_args, **_kw: pytest.fail("it set up"))
    assert main.main(["setup", word]) == 1
    assert f"setup does not know {word}" in capsys.readouterr().err


def test_what_the_system_refuses_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_args: object, **_kw: object) -> None:
        raise OSError(28, "No space left on device", "/cache/x")

    monkeypatch.setattr(setup, "require", full)
    assert main.main(["setup"]) == 1
    assert "dev: setup: [Errno 28] No space left on device: '/cache/x'" in capsys.readouterr().err


def test_a_failed_build_shows_its_first_failure(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    rows = ["[1/9] ok"] * 50 + ["FAILED: a.o", "a.cc:1: error"] + ["[2/9] ok"] * 50
    log.write_text("\n".join(rows))
    assert run.tail(log).splitlines()[:2] == ["FAILED: a.o", "a.cc:1: error"]
    log.write_text("\n".join(["first"] * 50 + ["last"]))
    assert run.tail(log).splitlines()[-1] == "last"
