"""The doctor names what stands in the way and the way out, and goes on to the next check."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import build
from terrace import doctor
from terrace.doctor import Asked, Finding


@pytest.fixture(autouse=True)
def _program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", str(build.folder("release") / "bin" / "terrace"))


def _good(_asked: Asked) -> Iterator[Finding]:
    yield doctor.ok("fine")


def _bad(_asked: Asked) -> Iterator[Finding]:
    yield doctor.ok("begun")
    raise RuntimeError("the disk is a spoon")


def test_a_failed_check_is_named_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("first", _bad), ("second", _good)))
    assert doctor.main() == 1
    shown = capsys.readouterr().out
    assert "FAIL first: the disk is a spoon" in shown
    assert "ok   fine" in shown


def test_with_nothing_wrong_the_exit_is_0_and_json_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("only", _good),))
    assert doctor.main() == 0
    capsys.readouterr()
    assert doctor.main(["--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["findings"]
    assert row == {"check": "only", "state": "ok", "text": "fine", "way_out": ""}


def test_a_missing_library_fails_its_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_LIBRARY", "/nowhere/libterrace.so")
    monkeypatch.setattr(doctor, "CHECKS", (("library", doctor.library),))
    assert doctor.main() == 1
    assert "/nowhere/libterrace.so" in capsys.readouterr().out


def one(check: doctor.Check, asked: Asked | None = None) -> Finding:
    (found,) = check(asked or Asked(settings={}))
    return found


@pytest.mark.parametrize("check", [doctor.cpu, doctor.memory, doctor.limits, doctor.io_uring])
def test_the_machine_is_described(check: doctor.Check) -> None:
    assert [finding.text for finding in check(Asked(settings={}))]


SECOND = {
    "proc/self/cgroup": "0::/pod/engine\n",
    "sys/fs/cgroup/pod/engine/memory.max": "max\n",
    "sys/fs/cgroup/pod/memory.max": f"{4 << 30}\n",
}
FIRST = {
    "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu:/x\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 << 30}\n",
}
PRIVATE = {  # A container with its own view of the groups.
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": f"{4 << 30}\n",
}
FIRST_WITHOUT_LIMIT = FIRST | {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}


def made_up(root: Path, files: dict[str, str]) -> Path:
    for name, text in (files | {"proc/meminfo": f"MemTotal: {8 << 20} kB\n"}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "size", "state", "named"),
    [
        (SECOND, "5GiB", "fail", "pod/memory.max"),
        (FIRST, "5GiB", "fail", "memory/memory.limit_in_bytes"),
        (PRIVATE, "5GiB", "fail", "cgroup/memory.max"),
        (PRIVATE | {"proc/self/cgroup": "0::/../beside\n"}, "5GiB", "fail", "cgroup/memory.max"),
        (PRIVATE | {"proc/self/cgroup": "::\n:\n\n0\n"}, "5GiB", "ok", "the machine's memory"),
        ({}, "5GiB", "ok", "the machine's memory"),
        (SECOND, "4000MiB", "warn", "pod/memory.max"),
        (SECOND, "1GiB", "ok", "4096 MiB"),
        (FIRST_WITHOUT_LIMIT, "5GiB", "ok", "the machine's memory"),
        (FIRST_WITHOUT_LIMIT, "17179869184", "fail", "the machine's memory"),
        (SECOND, "5GB", "fail", "pod/memory.max"),
        (SECOND, "4200MB", "warn", "pod/memory.max"),
        (SECOND, "1TB", "fail", "pod/memory.max"),
        (SECOND, "3999999KB", "warn", "pod/memory.max"),
        (SECOND, "1000000001B", "ok", "4096 MiB"),
    ],
)
def test_a_host_size_over_what_there_is_is_named_with_the_limit(
    tmp_path: Path, files: dict[str, str], size: str, state: str, named: str
) -> None:
    (found,) = doctor.host_tier(Asked(settings={"host.size": size}), made_up(tmp_path, files))
    assert found.state == state
    assert f"host.size {size}" in found.text
    assert named in found.text
    assert bool(found.way_out) == (state != "ok")


def test_the_command_compares_the_host_size_that_the_settings_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERRACE_HOST_SIZE", "1000TB")
    asked = [one for one in doctor.CHECKS if one[0] in ("settings", "host")]
    monkeypatch.setattr(doctor, "CHECKS", asked)
    assert doctor.main() == 1
    assert "FAIL host.size 1000TB: more than" in capsys.readouterr().out


def test_without_a_host_tier_there_is_nothing_to_compare() -> None:
    assert not list(doctor.host_tier(Asked(settings={"host.size": "0", "host.staging": "9TiB"})))
    assert not list(doctor.host_tier(Asked()))


# A page of 4 KiB is the least that a block takes; 90 % of 4 GiB is what a thousand may have.
@pytest.mark.parametrize(
    ("blocks", "state", "named"),
    [
        ("1000", "note", "host.blocks 1000: within the 4096 MiB of "),
        ("1000", "note", "10% of it left to the engine"),
        ("1000", "note", "takes at most 3774 KiB"),
        ("1048576", "warn", "leaves next to nothing of the 4096 MiB of "),
        ("943718", "note", "takes at most 4 KiB"),
        ("943719", "warn", "leaves next to nothing"),
        ("1048577", "fail", "host.blocks 1048577: takes more than the 4096 MiB of "),
    ],
)
def test_blocks_of_the_host_tier_are_compared_and_beat_its_size(
    tmp_path: Path, blocks: str, state: str, named: str
) -> None:
    asked = Asked(settings={"host.blocks": blocks, "host.size": "1TiB"})
    (found,) = doctor.host_tier(asked, made_up(tmp_path, SECOND))
    assert found.state == state
    assert named in found.text
    assert "pod/memory.max" in found.text
    assert "TERRACE_HOST_" in found.way_out


@pytest.mark.parametrize("below", [{"disk.size": "9GiB"}, {"disk.blocks": "7"}])
def test_staging_for_a_disk_alone_is_compared_as_well(
    tmp_path: Path, below: dict[str, str]
) -> None:
    asked = Asked(settings={"host.size": "0", "host.staging": "5GiB", **below})
    (found,) = doctor.host_tier(asked, made_up(tmp_path, SECOND))
    assert found.state == "fail"
    assert found.text.startswith("host.staging 5GiB: more than the 4096 MiB of ")
    assert found.way_out.startswith("lower host.staging (TERRACE_HOST_STAGING), ")


@pytest.mark.parametrize("left", [0, 12])
def test_a_file_system_without_inodes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    facts = os.statvfs(tmp_path)
    few = os.statvfs_result((*facts[:5], 1000, left, left, *facts[8:]))
    monkeypatch.setattr(os, "statvfs", lambda _folder: few)
    found = list(doctor.disk(Asked(settings={"disk.paths": str(tmp_path)})))[-1]
    assert found.state == "warn"
    assert f"{left} of 1000 inodes left" in found.text
    assert "df -i" in found.text


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_HOST_SIZE", "3bananas")
    found = one(doctor.settings)
    assert found.state == "fail"
    assert "bananas" in found.text


def test_settings_without_a_size_are_no_failure() -> None:
    assert one(doctor.settings).state == "note"


def test_each_wrong_setting_is_a_failure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRACE_HOST_SIZE", "3bananas")
    monkeypatch.setenv("TERRACE_DISK_SIZE", "4bananas")
    found = list(doctor.settings(Asked()))
    assert [finding.state for finding in found] == ["fail", "fail"]
    assert "setting disk.size (environment TERRACE_DISK_SIZE)" in found[0].text
    assert "setting host.size (environment TERRACE_HOST_SIZE)" in found[1].text


def test_a_directory_of_sockets_that_is_open_to_others_is_told(tmp_path: Path) -> None:
    asked = Asked(settings={"attach.directory": str(tmp_path / "run")})
    assert one(doctor.attach_directory, asked).state == "ok"  # Will be made.
    (tmp_path / "run").mkdir(mode=0o755)
    found = one(doctor.attach_directory, asked)
    assert (found.state, found.way_out) == ("fail", f"chmod 700 {tmp_path / 'run'}")
    (tmp_path / "run").chmod(0o700)
    assert one(doctor.attach_directory, asked).state == "ok"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    assert (
        one(doctor.attach_directory, Asked(settings={"attach.directory": str(link)})).state
        == "fail"
    )


def test_a_disk_size_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    def said(size: str) -> list[Finding]:
        settings = {"disk.paths": f"{tmp_path / 'a'},{tmp_path / 'b'}", "disk.size": size}
        return [one for one in doctor.disk(Asked(settings=settings)) if "disk.size" in one.text]

    (found,) = said("1000TiB")
    assert found.state == "warn"
    assert "can be had in disk.paths" in found.text
    assert said("1MiB") == []


def test_a_disk_that_is_none_or_lives_short_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(path: object) -> list[Finding]:
        return list(doctor.disk(Asked(settings={"disk.paths": str(path)})))

    assert found(tmp_path)[0].state == "ok"
    file = tmp_path / "file"
    file.touch()
    assert [finding.state for finding in found(file)] == ["fail"]
    monkeypatch.setattr(doctor, "file_system", lambda _path: "tmpfs")
    monkeypatch.setattr(doctor, "_try_direct", lambda _folder: "O_DIRECT refused")
    assert [finding.state for finding in found(tmp_path)] == ["ok", "warn", "warn"]
    assert all(finding.way_out for finding in found(tmp_path)[1:])
    monkeypatch.setattr(doctor, "_try_direct", lambda _folder: "")
    for kind in ("nfs4", "fuse.sshfs"):
        monkeypatch.setattr(doctor, "file_system", lambda _path, kind=kind: kind)
        assert [finding.state for finding in found(tmp_path)] == ["ok", "warn"]
        assert "object.path" in found(tmp_path)[1].way_out


def test_nothing_is_left_of_the_write_that_was_tried(tmp_path: Path) -> None:
    doctor._try_direct(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        found = one(doctor.port, Asked(port=other.getsockname()[1]))
    assert found.state == "fail"


def test_a_model_without_weights_is_told(tmp_path: Path) -> None:
    found = one(doctor.model, Asked(model=str(tmp_path)))
    assert found.state == "fail"
    assert str(tmp_path) in found.text
