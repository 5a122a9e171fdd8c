"""`terrace serve MODEL --host 20GB --disk 100GB [-- flags]`: vLLM's server over Terrace's tiers."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrace.cli import program

FAILED = 1


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options.host:
        settings["host.size"] = options.host
    if options.disk:
        settings["disk.size"] = options.disk
    if options.disk_path:
        settings["disk.paths"] = [os.path.abspath(path) for path in options.disk_path]  # noqa: PTH100
    for text in options.set:
        name, _, value = text.partition("=")
        settings[name] = value
    return settings


def transfer_config(settings: dict[str, Any]) -> dict[str, Any]:
    """What goes after vLLM's --kv-transfer-config."""
    return {
        "kv_connector": "TerraceConnector",
        "kv_connector_module_path": "terrace.connectors.vllm",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": settings,
    }


def command(model: str, settings: dict[str, Any], flags: Sequence[str]) -> list[str]:
    flag = json.dumps(transfer_config(settings), separators=(",", ":"))
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*server, "--model", model, "--kv-transfer-config", flag, *flags]


def refusal(settings: dict[str, Any]) -> str:
    """What a start with these settings would be refused for; "" = nothing."""
    asked: list[str | Path] = [program.find(), "config", "--json", "--engine", json.dumps(settings)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    given = list(arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(
        prog="terrace serve",
        description=__doc__,
        epilog="What follows `--` goes to the engine as it is.",
    )
    parser.add_argument("model")
    parser.add_argument("--host", metavar="SIZE", help="host memory for the cache, as 20GB")
    parser.add_argument("--disk", metavar="SIZE", help="disk space for the cache, as 100GB")
    parser.add_argument("--disk-path", metavar="DIR", action="append", help="where; repeatable")
    parser.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="any other"
    )
    parser.add_argument("--print", action="store_true", help="print the command and stop")
    options = parser.parse_args(given[:cut])
    options.flags = given[cut + 1 :]
    for text in options.set:
        if not text.partition("=")[1]:
            parser.error(f"--set takes NAME=VALUE, as host.huge_pages=off; got '{text}'")
    if not options.host and not options.disk and not options.set:
        parser.error("say how much: --host SIZE, --disk SIZE, or both")
    if any(flag.split("=")[0] == "--kv-transfer-config" for flag in options.flags):
        parser.error("--kv-transfer-config is what this command makes; use --set NAME=VALUE")
    return options


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    settings = _settings(options)
    try:
        problem = refusal(settings)
    except FileNotFoundError as error:
        problem = str(error)
    if problem:
        print(problem, file=sys.stderr)
        return FAILED
    asked = command(options.model, settings, options.flags)
    print(shlex.join(asked), flush=True)
    if options.print:
        return 0
    if importlib.util.find_spec("vllm") is None:
        print(f"terrace serve: vLLM is not installed for {sys.executable}", file=sys.stderr)
        return FAILED
    os.execv(asked[0], asked)
    raise AssertionError("execv came back")
