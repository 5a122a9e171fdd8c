"""`terrace migrate-config`: Terrace's settings for KVBM's environment, or LMCache's and its file.

Names, units and defaults are those of kvbm 1.6.1 and lmcache 0.5.6.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from terrace.cli import program

FAILED = 1
GIB = 1 << 30
HIDDEN = "<hidden>"  # What the native program prints for a secret that is set.
NO_SIZE = (
    "no tier has a size: of KVBM's, give DYN_KVBM_CPU_CACHE_GB or DYN_KVBM_DISK_CACHE_GB; of "
    "LMCache's, max_local_cpu_size with local_cpu, or max_local_disk_size with local_disk"
)
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class LeftOut:
    """A setting that a start would refuse, and why."""

    value: Any
    reason: str


@dataclass
class Found:
    """Settings that follow, and a sentence for whatever has no counterpart or needs a word."""

    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)


class WrongValueError(Exception):
    """A value that they would not take either, or nothing to start with; the text names it."""


def _is_on(value: Any) -> bool:
    return value is True or str(value).strip().lower() in _TRUE


def _number(name: str, value: Any, unit: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise WrongValueError(f"{name}: {value!r} is no number of {unit}")
    return number


def _gib(name: str, value: Any) -> int:
    """LMCache counts in GiB, fractions allowed."""
    return int(_number(name, value, "GiB") * GIB)


def _size(size: int) -> str:
    """In the largest unit that is exact."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return f"{size}B"


def _paths(value: Any) -> list[str]:
    parts = [part.strip() for part in str(value).split(",")]
    return [part.removeprefix("file://").rstrip("/") or "/" for part in parts if part]


def _host(values: Mapping[str, Any], found: Found) -> None:
    size = _gib("max_local_cpu_size", values.get("max_local_cpu_size", 5.0))
    if _is_on(values.get("local_cpu", True)):
        found.settings["host.size"] = _size(size)
        found.notes.append("host.size is for all ranks together; LMCache's is for each rank")
    else:
        found.settings["host.staging"] = _size(size)
        found.notes.append("local_cpu off: host memory only passes blocks on (host.staging)")


def _disk(values: Mapping[str, Any], found: Found) -> None:
    if not values.get("local_disk"):
        return
    size = _gib("max_local_disk_size", values.get("max_local_disk_size", 0.0))
    found.settings["disk.paths"] = _paths(values["local_disk"])
    if size:
        found.settings["disk.size"] = _size(size)
        found.notes.append("disk.size is for all ranks together; blocks are found after a restart")
    else:
        found.notes.append("max_local_disk_size is 0, so there is no disk tier")


# What LMCache has and Terrace answers otherwise; said only when it is set.
_ELSEWHERE = {
    "chunk_size": "chunk_size: blocks are the engine's own (--block-size)",
    "remote_url": "remote_url: for a shared directory set object.path, for S3 object.enabled, "
    "object.bucket and object.endpoint; other stores have no counterpart",
    "remote_serde": "remote_serde: KV is stored as it is, bit for bit",
    "enable_blending": "enable_blending: only whole prefixes are reused",
    "enable_p2p": "enable_p2p: peers are not built yet",
    "enable_pd": "enable_pd: use vLLM's MultiConnector with Terrace beside the transfer connector",
    "enable_controller": "enable_controller: no controller is needed on one node",
    "pre_caching_hash_algorithm": "pre_caching_hash_algorithm: keys are SHA-256; no seed is needed",
    "use_layerwise": "use_layerwise: loads are complete before the forward pass",
    "cache_policy": "cache_policy: host.eviction and disk.eviction are hazard or lru, leaves first",
    "priority_limit": "priority_limit: priorities are not served yet",
    "min_retrieve_tokens": "min_retrieve_tokens: the planner measures what pays (planner.enabled)",
    "gds_path": "gds_path: GPU Direct Storage is not built; use disk.paths",
    "internal_api_server_enabled": "internal_api_server_enabled: see `terrace status`",
    "save_unfull_chunk": "save_unfull_chunk: only full blocks are stored",
}


def _rest(values: Mapping[str, Any], found: Found) -> None:
    if not _is_on(values.get("save_decode_cache", False)):
        found.settings["offload.scope"] = "prompt"
        found.notes.append(
            "LMCache stores no answers by default; leave offload.scope out to have them"
        )
    if _is_on(values.get("local_cpu_use_hugepages", False)):
        found.settings["host.huge_pages"] = "auto"
    if _is_on(values.get("enable_kv_events", False)):
        found.settings["events.enabled"] = True
    if "lookup_timeout_ms" in values:
        wait = _number("lookup_timeout_ms", values["lookup_timeout_ms"], "milliseconds")
        found.settings["lookup.deadline"] = f"{int(wait)}ms"
    known = {"local_cpu", "max_local_cpu_size", "local_disk", "max_local_disk_size"}
    known |= {"save_decode_cache", "local_cpu_use_hugepages", "enable_kv_events"}
    known |= {"lookup_timeout_ms"}
    for name in sorted(set(values) - known):
        found.notes.append(_ELSEWHERE.get(name, f"{name}: has no counterpart here"))


def from_lmcache(file: Mapping[str, Any], environment: Mapping[str, str]) -> Found:
    """LMCache's file, with LMCACHE_* over it.  Raises WrongValueError."""
    values: dict[str, Any] = dict(file)
    for name, text in environment.items():
        if name.startswith("LMCACHE_") and name != "LMCACHE_CONFIG_FILE":
            values[name.removeprefix("LMCACHE_").lower()] = text
    found = Found()
    for part in (_host, _disk, _rest):
        part(values, found)
    return found


def _native(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """What `terrace config` says over this environment.  Raises WrongValueError."""
    ours = ("TERRACE_", "DYN_", "KVBM_", "ENABLE_KVBM_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [program.find(), "config", "--json", *words],
        env=kept | dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        told = [line for line in lines if not line.endswith("the settings are refused")]
        raise WrongValueError("\n".join(told) or f"{done.args[0]}: exit code {done.returncode}")
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def from_kvbm(environment: Mapping[str, str]) -> Found:
    """What the native program makes of DYN_KVBM_* alone.  Raises WrongValueError."""
    read = _native([], environment)
    found = Found(notes=[*read["warnings"], *read["notes"]])
    for name, one in read["settings"].items():
        if one["value"] == HIDDEN:
            found.left_out[name] = LeftOut(HIDDEN, "a secret is not printed; set it by hand")
        elif "environment" in one["level"]:
            found.settings[name] = one["value"]
    return found


def leave_out_what_is_refused(found: Found) -> None:
    """So that a start accepts what is printed.  Raises WrongValueError when nothing is left."""
    while True:
        try:
            _native(["--engine", json.dumps(found.settings)], {})
        except WrongValueError as error:
            wrong = {
                name: line.partition(": ")[2]
                for line in str(error).splitlines()
                for name in re.findall(r"([\w.]+) \(engine JSON\)", line)
                if name in found.settings
            }
            if not wrong:
                raise
            for name, reason in wrong.items():
                found.left_out[name] = LeftOut(found.settings.pop(name), reason)
        else:
            if "disk.paths" not in found.left_out or "disk.size" not in found.settings:
                return
            reason = "without disk.paths, blocks would lie in the user's cache folder"
            found.left_out["disk.size"] = LeftOut(found.settings.pop("disk.size"), reason)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongValueError(f"{path}: {error}") from None
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise WrongValueError(f"{path}: reading YAML needs the package PyYAML") from None
    try:
        read = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise WrongValueError(f"{path}: {error}") from None
    if not isinstance(read, dict):
        raise WrongValueError(f"{path}: is no mapping of names to values")
    return read


def _comment(text: str) -> str:
    """One line, whatever stands in it."""
    return "# " + "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _toml_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml(found: Found) -> str:
    """A settings file, one table for each part, with the notes above it."""
    lines = [_comment(note) for note in found.notes]
    tables: dict[str, list[str]] = {}
    for name, value in sorted(found.settings.items()):
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {_toml_value(value)}")
    for name, one in sorted(found.left_out.items()):
        table, _, key = name.rpartition(".")
        rows = tables.setdefault(table, [])
        rows += [_comment(f"left out: {one.reason}"), _comment(f"{key} = {_toml_value(one.value)}")]
    for table, rows in sorted(tables.items()):
        is_used = any(not row.startswith("#") for row in rows)
        lines += ["", f"[{table}]" if is_used else f"# [{table}]", *rows]
    return "\n".join(lines) + "\n"


def _export(name: str, value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"export TERRACE_{name.replace('.', '_').upper()}={shlex.quote(text)}"


def environment(found: Found) -> str:
    """The same as shell assignments."""
    lines = [_comment(note) for note in found.notes]
    lines += [_export(name, value) for name, value in sorted(found.settings.items())]
    for name, one in sorted(found.left_out.items()):
        lines += [_comment(f"left out: {one.reason}"), _comment(_export(name, one.value))]
    return "\n".join(lines) + "\n"


def _json(found: Found) -> str:
    return json.dumps(asdict(found)) + "\n"


_FORMS: dict[str, Callable[[Found], str]] = {
    "toml": toml,
    "env": environment,
    "json": _json,
    "engine": lambda found: json.dumps(found.settings) + "\n",
}


def _source(options: argparse.Namespace) -> Found:
    mine = {name: text for name, text in os.environ.items() if name.startswith("LMCACHE_")}
    theirs = {
        name: text
        for name, text in os.environ.items()
        if name.startswith(("DYN_", "KVBM_", "ENABLE_KVBM_"))
    }
    file = options.file or os.environ.get("LMCACHE_CONFIG_FILE")
    kind = options.source or ("lmcache" if file or mine else "kvbm")
    if kind == "lmcache":
        if not file and not mine:
            raise WrongValueError("neither an LMCache file nor LMCACHE_* is given")
        return from_lmcache(_yaml(Path(file)) if file else {}, mine)
    if not theirs:
        raise WrongValueError("no DYN_KVBM_* is set; for LMCache name its file, or set LMCACHE_*")
    return from_kvbm(theirs)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="terrace migrate-config", description=__doc__)
    parser.add_argument("file", nargs="?", help="LMCache's YAML file; else the environment")
    parser.add_argument("--from", dest="source", choices=("kvbm", "lmcache"))
    parser.add_argument(
        "--as",
        dest="form",
        choices=tuple(_FORMS),
        default="toml",
        help="a file, shell assignments, JSON with notes, or kv_connector_extra_config",
    )
    options = parser.parse_args(arguments)
    try:
        found = _source(options)
        leave_out_what_is_refused(found)
    except (WrongValueError, OSError) as error:
        text = NO_SIZE if "no tier has a size" in str(error) else str(error)
        print(f"terrace migrate-config: {text}", file=sys.stderr)
        return FAILED
    if options.form == "engine":  # JSON has no comments.
        for note in found.notes:
            print(f"terrace migrate-config: {_comment(note)[2:]}", file=sys.stderr)
        for name, one in found.left_out.items():
            print(f"terrace migrate-config: left out: {name}: {one.reason}", file=sys.stderr)
    sys.stdout.write(_FORMS[options.form](found))
    return 0
