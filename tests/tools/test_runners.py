"""./dev bench and ./dev campaign choose and filter what was asked for."""

from pathlib import Path

import pytest

from dev import bench, campaign, paths, say

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


def test_an_unknown_campaign_names_the_known() -> None:
    with pytest.raises(say.Stop) as raised:
        campaign.main(["fly"])
    assert "asan" in raised.value.way_out
