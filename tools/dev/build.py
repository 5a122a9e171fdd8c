"""./dev build: CMake and ninja, with the compiler cache in the user's cache folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from dev import paths, run, say, setup

JOB_MEMORY_KIB = 1_200_000  # the largest compilation, with sanitizers


def presets() -> list[str]:
    path = paths.ROOT / "CMakePresets.json"
    listed = json.loads(path.read_text())["configurePresets"]
    return [entry["name"] for entry in listed if not entry.get("hidden")]


def folder(preset: str) -> Path:
    return paths.BUILD / preset


def ccache_environment() -> dict[str, str]:
    """Results are shared between clones: paths inside the repository do not count."""
    return {
        "CCACHE_DIR": str(paths.cache() / "ccache"),
        "CCACHE_BASEDIR": str(paths.ROOT),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_MAXSIZE": "5G",
    }


def jobs(memory_kib: int = JOB_MEMORY_KIB) -> int:
    """One per CPU, fewer if memory is short for that many that need so much each."""
    text = Path("/proc/meminfo").read_text()
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    by_memory = int(found.group(1)) // memory_kib if found else 1
    return max(1, min(len(os.sched_getaffinity(0)), by_memory))


def forget_moved(built: Path) -> None:
    """Removes what was built while the repository lay elsewhere: CMake refuses to go on in it."""
    try:
        cache = (built / "CMakeCache.txt").read_text(errors="replace")
    except FileNotFoundError:
        return
    home = re.search(r"^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$", cache, re.MULTILINE)
    if home and home.group(1) != str(paths.ROOT):
        say.note(f"{paths.relative(built)} was made in {home.group(1)}: making it anew")
        shutil.rmtree(built)


def configure(preset: str) -> None:
    known = presets()
    if preset not in known:
        raise say.Stop(f"there is no preset '{preset}'", f"known are: {', '.join(known)}")
    forget_moved(folder(preset))
    run.stepped(
        f"configure {preset}",
        ["cmake", "--preset", preset],
        f"configure-{preset}",
        env=ccache_environment(),
        way_out="if the machine changed since the last build, ./dev clean helps",
    )


def build(preset: str = "release", targets: Sequence[str] = ()) -> Path:
    """Configures and builds; returns the build folder."""
    configure(preset)
    command: list[str | Path] = ["ninja", "-C", folder(preset), "-j", str(jobs()), *targets]
    run.stepped(f"build {preset}", command, f"build-{preset}", env=ccache_environment())
    return folder(preset)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1:
        raise say.Stop("build takes one preset", f"known are: {', '.join(presets())}")
    preset = arguments[0] if arguments else "release"
    groups = ("build", "check") if preset in ("clang", "fuzz") else ("build",)
    setup.require(groups, engine=False)
    say.note(f"built {paths.relative(build(preset))}")
    return 0
