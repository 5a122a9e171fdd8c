"""What this machine has, and what speaks against working here."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
# The engine with the float32 model, its KV cache and a host tier, beside one compiler.
MEMORY_NEEDED = 4 * GIB
ENVIRONMENT_DISK = 2.6 * GIB  # 1.9 installed, 0.7 downloaded until it is whole
MODEL_DISK = 1.0 * GIB  # 0.8 converted, 0.1 downloaded and unpacked for a moment
SERVICES_DISK = 0.3 * GIB  # 0.15 unpacked, 0.05 downloaded for a moment
CHROMIUM_DISK = 0.6 * GIB  # 0.35 unpacked, 0.1 downloaded for a moment
PROMETHEUS_DISK = 0.25 * GIB  # 0.1 unpacked, twice for a moment, and the package
BUILD_DISK = 3.0 * GIB  # objects and the disk tiers of tests and demo
APT_DISK = 0.7 * GIB


@dataclass(frozen=True)
class Host:
    """Facts of the machine, or of the container on it, read once."""

    machine: str
    cpus: int
    flags: frozenset[str]
    memory: int

    def instruction_sets(self) -> str:
        wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        return ", ".join(name for name in wanted if name in self.flags) or "none of AVX2, AVX-512"


def _limits_of_groups(root: Path) -> Iterator[int]:
    """Bytes of memory that this process's control groups allow, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # A kernel without control groups.
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        place = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = place / path.lstrip("/")
        # In a container the path may be the host's; the root is always there.
        for one in (folder, *folder.parents):
            if not one.is_relative_to(place):
                break
            with contextlib.suppress(OSError, ValueError):  # Not there, or "max".
                yield int((one / name).read_text())


def read(root: Path = Path("/")) -> Host:
    flags = re.search(r"^flags\s*:(.*)$", (root / "proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    whole = int(memory.group(1)) * 1024 if memory else 0
    return Host(
        machine=platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        flags=frozenset(flags.group(1).split()) if flags else frozenset(),
        memory=min([whole, *_limits_of_groups(root)]),
    )


def problems(host: Host) -> list[str]:
    """Reasons why nothing can work on this machine, each with what would help."""
    found = []
    if host.machine != "x86_64":
        found.append(f"the CPU is {host.machine}; the engine's build and the locks are for x86_64")
    elif "avx2" not in host.flags:
        found.append("the CPU has no AVX2, which the engine's CPU build needs; use a newer machine")
    if host.memory < MEMORY_NEEDED:
        found.append(
            f"the machine has {host.memory / GIB:.1f} GiB of memory; "
            f"{MEMORY_NEEDED / GIB:.0f} GiB are needed"
        )
    return found


def existing(path: Path) -> Path:
    """The path, or its nearest parent that exists and can be looked at."""
    while not os.path.exists(path):  # noqa: PTH110 (Path.exists raises where one may not look)
        path = path.parent
    return path


def folder_problems(folders: dict[Path, str]) -> list[str]:
    """Each folder that cannot be made or written to, with what would help (the folder's value)."""
    found = []
    for folder, way_out in folders.items():
        place = existing(folder)
        if not place.is_dir():
            found.append(f"{folder} cannot be made: {place} is no folder; {way_out}")
        elif not os.access(place, os.W_OK | os.X_OK):
            found.append(f"{folder}: this user may not write to {place}; {way_out}")
    return found


def disk_problems(needs: dict[Path, float]) -> list[str]:
    """Each file system that has less room than the folders on it will need together."""
    wanted: dict[int, float] = {}
    where: dict[int, Path] = {}
    for path, size in needs.items():
        folder = existing(path)
        device = folder.stat().st_dev
        wanted[device] = wanted.get(device, 0) + size
        where[device] = folder
    found = []
    for device, size in wanted.items():
        free = shutil.disk_usage(where[device]).free
        if free < size:
            found.append(
                f"{where[device]} has {free / GIB:.1f} GiB free, {size / GIB:.1f} GiB are needed; "
                "make room, or set TERRACE_CACHE_DIR to a folder on a larger disk"
            )
    return found
