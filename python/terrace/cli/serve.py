"""`terrace serve MODEL --host 20GB --disk 100GB [-- flags]`: vLLM's server over Terrace's tiers."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrace import doctor
from terrace.cli import program

FAILED = 1


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options.host is not None:
        settings["host.size"] = options.host
    if options.disk is not None:
        settings["disk.size"] = options.disk
    if options.disk_path:
        paths = [Path(path).expanduser() for path in options.disk_path]
        settings["disk.paths"] = [os.path.abspath(path) for path in paths]  # noqa: PTH100
    for text in options.set:
        name, _, value = text.partition("=")
        settings[name] = value
    return settings


def transfer_config(settings: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """What goes after vLLM's --kv-transfer-config; without a name vLLM makes one up."""
    return ({} if name is None else {"engine_id": name}) | {
        "kv_connector": "TerraceConnector",
        "kv_connector_module_path": "terrace.connectors.vllm",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": settings,
    }


def command(
    model: str, settings: dict[str, Any], flags: Sequence[str], name: str | None = None
) -> list[str]:
    flag = json.dumps(transfer_config(settings, name), separators=(",", ":"))
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*server, "--model", model, "--kv-transfer-config", flag, *flags]


def refusal(settings: dict[str, Any]) -> list[str]:
    """What a start with these settings would be refused for, a line each."""
    asked: list[str | Path] = [program.find(), "config", "--json", "--engine", json.dumps(settings)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines() if done.returncode else []
    if done.returncode and not lines:
        return [f"{asked[0]}: exit code {done.returncode}"]
    return [line for line in lines if not line.endswith("the settings are refused")]


def _flag(name: str, options: argparse.Namespace) -> str:
    """What the user wrote to give this setting."""
    own = {"host.size": "host", "disk.size": "disk", "disk.paths": "disk_path"}.get(name, "")
    if getattr(options, own, None) is None:
        return f"--set {name}"
    return "--" + own.replace("_", "-")


def _in_flags(line: str, options: argparse.Namespace) -> str:
    """One problem that a start would tell, in the words of the command line."""
    if options.disk_path and ("no tier has a size" in line or "no size for what" in line):
        return (
            "--disk-path says where, and nothing says how much may lie there: add --disk SIZE, "
            "such as --disk 100GiB"
        )
    if "no tier has a size" in line:
        return "say how much: --host SIZE, --disk SIZE, or both, such as --host 20GiB"
    line = re.sub(r'^unknown setting "(.*)" \(engine JSON\)', r"--set \1: unknown setting", line)
    line = re.sub(
        r"(?:settings? )?([\w.]+) \(engine JSON\)", lambda one: _flag(one[1], options), line
    )
    if line.startswith("--host:"):
        line += "; the engine's own --host goes after `--`"
    if line.startswith("--disk-path:"):
        line = line.removesuffix(", as a list or separated by commas")
    return line


def _missing(options: argparse.Namespace, settings: dict[str, Any]) -> str:
    """What a start needs on this machine and does not find; "" = nothing."""
    if options.model.startswith(("/", "./", "../", "~")) and not os.path.exists(options.model):  # noqa: PTH110
        return f"MODEL {options.model}: there is no such folder"
    if options.disk_path:
        for path in settings["disk.paths"]:
            if why := doctor.unwritable(Path(path)):
                return f"--disk-path {path}: {why}; name a folder that you may write to"
    if importlib.util.find_spec("vllm") is None:
        return (
            f"vLLM is not installed for {sys.executable}; install it beside Terrace, in one "
            "environment, or take the command for another one from --print"
        )
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="terrace serve",
        usage="%(prog)s MODEL [--host SIZE] [--disk SIZE] [--disk-path DIR ...] "
        "[--set NAME=VALUE ...] [--name NAME] [--print] [-- FLAGS]",
        description="Start vLLM's server over Terrace's tiers.",
        epilog="FLAGS are the engine's own and go to it as they are.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or a name that vLLM knows")
    parser.add_argument("--host", metavar="SIZE", help="host memory for the cache, as 20GiB")
    parser.add_argument("--disk", metavar="SIZE", help="disk space for the cache, as 100GiB")
    parser.add_argument(
        "--disk-path",
        metavar="DIR",
        action="append",
        help="where --disk lies, once for each disk; else in the user's cache folder",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any other setting; `terrace config --explain` lists them",
    )
    parser.add_argument(
        "--name",
        help="what status and metrics call the engine, over restarts; else new at each start",
    )
    parser.add_argument("--print", action="store_true", help="print the command and stop")
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    given = list(arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = _parser()
    options, unknown = parser.parse_known_args(given[:cut])
    if unknown:
        parser.error(
            f"not known here: {shlex.join(unknown)}; flags of the engine go after `--`, as in "
            "`terrace serve MODEL --host 20GiB -- --port 8000`"
        )
    options.flags = given[cut + 1 :]
    taken = {"host.size": options.host, "disk.size": options.disk, "disk.paths": options.disk_path}
    for text in options.set:
        name, is_pair, _ = text.partition("=")
        if not is_pair or not name:
            parser.error(f"--set takes NAME=VALUE, as host.huge_pages=off; got '{text}'")
        if taken.get(name) is not None:
            parser.error(f"{_flag(name, options)} and --set {name} say the same; keep one")
    name_form = r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}"
    if options.name is not None and not re.fullmatch(name_form, options.name):
        parser.error("--name takes up to 48 letters, digits, dots, dashes and underscores")
    if "" in (options.disk_path or []):
        parser.error("--disk-path names no folder")
    for flag in options.flags:
        # vLLM takes the underscore, too, and one part of the value after a dot.
        if re.match(r"--kv[-_]transfer[-_]config(?![^=.])", flag):
            parser.error("--kv-transfer-config is what this command makes; use --set NAME=VALUE")
    return options


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    settings = _settings(options)
    try:
        problems = refusal(settings)
    except OSError as error:
        problems = [str(error)]
    for told in dict.fromkeys(_in_flags(line, options) for line in problems):
        print(f"terrace serve: {told}", file=sys.stderr)
    if problems:
        return FAILED
    asked = command(options.model, settings, options.flags, options.name)
    if options.print:
        print(shlex.join(asked))
        return 0
    if missing := _missing(options, settings):
        print(f"terrace serve: {missing}", file=sys.stderr)
        return FAILED
    print(shlex.join(asked), flush=True)
    os.execv(asked[0], asked)
    raise AssertionError("execv came back")
