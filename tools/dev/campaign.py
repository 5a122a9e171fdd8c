"""./dev campaign: long runs that are no part of ./dev test, listed in tools/campaigns.toml.

Each entry is a table [campaign.NAME] with `text`, `run` (the command; {build} is the preset's build
folder, {python} the environment's interpreter, or without `engine` this one, {hybrid} the real
model of several KV groups) and optionally `preset` (default release), `targets` (what of it is
built; default all), `engine`, `hybrid` (true), and `release` of the engine when it is another one
than the locked one.  Arguments after the name go to the command.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from typing import Any

from dev import build, engines, gemma, paths, run, say, setup, venv
from engine_env import program_environment

TABLE = paths.ROOT / "tools" / "campaigns.toml"


def table() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = tomllib.loads(TABLE.read_text()).get("campaign", {})
    return found


def main(arguments: Sequence[str]) -> int:
    listed = table()
    if not arguments:
        for name, entry in listed.items():
            say.line(f"  {name:<14} {entry['text']}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in listed:
        raise say.Stop(f"there is no campaign '{name}'", f"known are: {', '.join(listed)}")
    entry = listed[name]
    preset = entry.get("preset", "release")
    engine = bool(entry.get("engine", False))
    groups = (*setup.ENGINE, "check") if preset in ("clang", "fuzz") else setup.ENGINE
    setup.require(groups, engine=engine)
    places = {
        "build": str(build.build(preset, entry.get("targets", ()))),
        "python": str(venv.python()) if engine else sys.executable,
        "jobs": str(build.jobs()),
        "hybrid": str(gemma.ensure()) if entry.get("hybrid") else "",
    }
    command = [word.format(**places) for word in entry["run"]]
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    env = {**program_environment(), **entry.get("env", {})}
    if "release" in entry:
        env |= engines.environment(entry["release"])
    return run.shown([*command, *rest], env=env)
