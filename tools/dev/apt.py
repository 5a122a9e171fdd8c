"""Debian packages: which are missing, and their installation."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path

from dev import paths, run, say

TABLE = paths.REQUIREMENTS / "apt.toml"


def packages(groups: Sequence[str]) -> list[str]:
    """The names of these groups of requirements/apt.toml."""
    table = tomllib.loads(TABLE.read_text())
    return [name for group in groups for name in table[group]]


def is_there() -> bool:
    """Whether this is a Debian-like system at all."""
    return shutil.which("apt-get") is not None and shutil.which("dpkg-query") is not None


def missing(groups: Sequence[str]) -> list[str]:
    wanted = packages(groups)
    _, text = run.captured(["dpkg-query", "-W", "-f", "${binary:Package} ${db:Status-Abbrev}\n"])
    installed = set()
    for line in text.splitlines():
        name, _, status = line.partition(" ")
        if status.startswith("ii"):
            installed.add(name.split(":")[0])
    return [name for name in wanted if name not in installed]


def _as_root() -> list[str]:
    """The words before a command that needs root."""
    if os.geteuid() == 0:
        return []
    return ["sudo", "--non-interactive"]


def may_install() -> bool:
    """Root, or a sudo that asks for nothing (asking once for the password if a person is there)."""
    if os.geteuid() == 0:
        return True
    if shutil.which("sudo") is None:
        return False
    if run.captured(["sudo", "--non-interactive", "true"])[0] == 0:
        return True
    return os.isatty(0) and run.shown(["sudo", "--validate"]) == 0


def _apt_get(text: str, arguments: Sequence[str], log: str, way_out: str = "") -> None:
    command = [*_as_root(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    command += ["-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=600", *arguments]
    run.stepped(text, command, log, way_out=way_out)


def _are_known(names: Sequence[str]) -> bool:
    """Whether apt's lists offer a version of every package."""
    _, text = run.captured(["apt-cache", "policy", *names])
    return text.count("Candidate:") == len(names) and "Candidate: (none)" not in text


def lacking(names: Sequence[str]) -> list[str]:
    """What an installation of these would add to this system, with all they depend on."""
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "--simulate", "install", *names]
    if not _are_known(names):
        _apt_get("refresh apt's package lists", ["update"], "apt-update")
    code, text = run.captured(command)
    if code != 0:
        raise say.Stop(f"apt-get knows no way to have {' '.join(names)}", "run apt-get update")
    return [line.split()[1] for line in text.splitlines() if line.startswith("Inst ")]


def download(names: Sequence[str], folder: Path) -> None:
    """The packages' files, as apt's signatures vouch for them; nothing is installed."""
    if not _are_known(names):
        _apt_get("refresh apt's package lists", ["update"], "apt-update")
    command = ["apt-get", "-q", "-o", "Acquire::Retries=5", "download", *names]
    try:
        run.logged(command, "apt-download", cwd=folder)
    except say.Stop:  # The lists are old: the mirror has a newer version.
        _apt_get("refresh apt's package lists", ["update"], "apt-update")
        run.logged(command, "apt-download", cwd=folder, way_out="apt's message stands above")


def install(names: Sequence[str]) -> None:
    """Installs exactly these and what they depend on; refreshes apt's lists only if it must."""
    if not names:
        return
    text = f"install {len(names)} Debian packages"
    arguments = ["install", "--no-install-recommends", *names]
    refreshed = not _are_known(names)
    if refreshed:
        _apt_get("refresh apt's package lists", ["update"], "apt-update")
    try:
        _apt_get(text, arguments, "apt-install")
    except say.Stop:
        if refreshed:
            raise
        _apt_get("refresh apt's package lists", ["update"], "apt-update")
        _apt_get(text, arguments, "apt-install", "apt's message stands above")
