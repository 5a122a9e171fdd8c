"""./dev bench and ./dev campaign choose and filter what was asked for."""

import subprocess
from pathlib import Path

import pytest

from dev import bench, campaign, paths, run, say, setup, test

TABLE = """
[[bench]]
name = "disk"
program = "bench/disk_bench"
[[bench]]
name = "vllm-ttft"
python = "bench/vllm/ttft.py"
engine = true
"""
ROW = (
    '{"name":"disk.read","params":{"depth":8},"unit":"bytes/s","value":2e9,"ratio":0.95,'
    '"limit_name":"fio"}'
)


def listed(tmp_path: Path, text: str = TABLE) -> list[bench.Bench]:
    (tmp_path / "bench.toml").write_text(text)
    return bench.read(tmp_path / "bench.toml")


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("disk", ["disk"]),
        ("disk.read", ["disk"]),
        ("vllm", ["vllm-ttft"]),
        ("vllm-ttft.host", ["vllm-ttft"]),
        ("copy", []),
    ],
)
def test_names_are_prefixes(tmp_path: Path, name: str, chosen: list[str]) -> None:
    assert [entry.name for entry in listed(tmp_path) if bench.asked(entry, [name])] == chosen


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], ["disk", "disk.tail", "vllm-ttft"]),
        (["disk"], ["disk", "disk.tail"]),
        (["disk.tail"], ["disk.tail"]),
        (["disk.tail.p99"], ["disk.tail"]),
        (["disk.read", "disk.tail"], ["disk", "disk.tail"]),
    ],
)
def test_a_name_is_answered_by_its_closest_entry(
    tmp_path: Path, names: list[str], chosen: list[str]
) -> None:
    below = '[[bench]]\nname = "disk.tail"\nprogram = "bench/tail_bench"\n[[bench]]\n'
    table = TABLE.replace('[[bench]]\nname = "vllm', below + 'name = "vllm')
    assert [entry.name for entry in bench.chosen(listed(tmp_path, table), names)] == chosen


@pytest.mark.parametrize(
    ("names", "is_chosen"), [([], False), (["disk"], False), (["peers"], True), (["peers.x"], True)]
)
def test_what_needs_more_packages_runs_only_when_it_is_named(
    tmp_path: Path, names: list[str], is_chosen: bool
) -> None:
    table = TABLE + '[[bench]]\nname = "peers"\npython = "x.py"\npeers = true\n'
    found = [entry.name for entry in bench.chosen(listed(tmp_path, table), names)]
    assert ("peers" in found) == is_chosen


def test_only_who_can_be_short_is_told_to_be(tmp_path: Path) -> None:
    table = TABLE + '[[bench]]\nname = "vllm-load"\npython = "x.py"\nshort = true\n'
    _, ttft, load = listed(tmp_path, table)
    assert bench.words(ttft, ["vllm-ttft.host"], is_short=True) == ["vllm-ttft.host"]
    assert bench.words(load, ["vllm"], is_short=True) == ["--short"]
    assert bench.words(load, [], is_short=False) == []


def test_only_asked_results_are_kept() -> None:
    assert bench.is_wanted(ROW, [])
    assert bench.is_wanted(ROW, ["disk.r"])
    assert not bench.is_wanted(ROW, ["disk.write"])
    assert not bench.is_wanted("warming up", [])
    assert not bench.is_wanted('{"no": "name"}', [])


def test_a_result_reads_as_a_line() -> None:
    assert bench.summary(ROW) == "disk.read depth=8: 2e+09 bytes/s  (0.950 of fio)"


def test_an_entry_without_a_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(say.Stop, match="either program or python"):
        listed(tmp_path, '[[bench]]\nname = "x"\n')


def test_own_tables_are_sound() -> None:
    for entry in bench.read():
        assert entry.program or (paths.ROOT / entry.python).exists(), entry.name
    for name, row in campaign.table().items():
        assert row["text"], name
        assert row["run"], name


def test_a_long_test_runs_its_campaigns_and_fails_with_the_worst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[list[str]] = []

    def one(arguments: list[str]) -> int:
        ran.append(arguments)
        return 1 if arguments[0] == "vllm-0.30" else 0

    monkeypatch.setattr(campaign, "main", one)
    assert test.main(["vllm-versions", "-x"]) == 1
    assert ran == [["vllm-0.30", "-x"], ["vllm-0.31", "-x"], ["engine", "-x"]]
    assert all(name in campaign.table() for names in test.LONG.values() for name in names)


@pytest.mark.parametrize("words", [["vllm-version"], ["--only", "cpp", "fly"], ["-x"]])
def test_a_word_that_test_does_not_know_builds_nothing(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "require", lambda *_args, **_kw: pytest.fail("it set up"))
    with pytest.raises(say.Stop) as raised:
        test.main(words)
    assert words[-1] in raised.value.cause
    assert "vllm-versions" in raised.value.way_out


def test_what_stands_after_the_dashes_is_pytests() -> None:
    options = test.parse(["--only", "python", "-k", "keys", "--", "-x", "--", "file.py"])
    assert (options.only, options.k) == (["python"], "keys")
    assert options.pytest == ["-x", "--", "file.py"]
    assert test.parse(["-k", "keys"]).pytest == []


def test_an_unknown_campaign_names_the_known() -> None:
    with pytest.raises(say.Stop) as raised:
        campaign.main(["fly"])
    assert "asan" in raised.value.way_out


class Interrupted:
    """A program whose first wait is broken by Ctrl-C; then it ends, or hangs until it is killed."""

    def __init__(self, hangs: bool) -> None:
        self._hangs = hangs
        self.calls: list[str] = []

    def wait(self, timeout: float | None = None) -> int:
        self.calls.append("wait" if timeout is None else "wait a while")
        if len(self.calls) == 1:
            raise KeyboardInterrupt
        if self._hangs and "kill" not in self.calls:
            raise subprocess.TimeoutExpired("x", timeout or 0)
        return 0

    def kill(self) -> None:
        self.calls.append("kill")


@pytest.mark.parametrize(
    ("hangs", "calls"),
    [
        (False, ["wait", "wait a while"]),
        (True, ["wait", "wait a while", "kill", "wait"]),
    ],
)
def test_ctrl_c_gives_a_program_time_to_end_what_it_started(
    hangs: bool, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Interrupted(hangs)
    monkeypatch.setattr(subprocess, "Popen", lambda *_args, **_kw: program)
    with pytest.raises(KeyboardInterrupt):
        run.shown(["demo"])
    assert program.calls == calls
