"""`./dev demo`: the real engine, one conversation, every tier; ends non-zero if an answer differs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from demo import conversation, report
from demo.report import Report
from demo.server import EngineError, Server, free_port
from demo.steps import Steps
from engine_env import ROOT, engine_env, installed

BLOCK_TOKENS = 32
MAX_TOKENS = 4096
# 135M in float32: 30 layers x 49,152 bytes (keys and values of 32 tokens, 3 heads of 64).
BLOCK_BYTES = 30 * 49_152
DAYS = 85  # lines per conversation: about 2,900 tokens
TALKS = 3  # two and a bit fill the engine's cache
BEGAN = time.monotonic()


def say(text: str) -> None:
    elapsed = int(time.monotonic() - BEGAN)
    print(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", flush=True)


def settings(disk: Path) -> dict[str, object]:
    return {"host.size": "1GiB", "disk.size": "1GiB", "disk.paths": [str(disk)]}


def command(port: int, model: Path, disk: Path) -> list[str]:
    transfer = {
        "kv_connector": "TerraceConnector",
        "kv_connector_module_path": "terrace.connectors.vllm",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": settings(disk),
    }
    flags = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--model": str(model),
        "--served-model-name": "smol",
        "--dtype": "float32",
        "--block-size": str(BLOCK_TOKENS),
        "--max-model-len": str(MAX_TOKENS),
        "--max-num-seqs": "4",
        # One conversation of the greatest length, and a few blocks to spare.
        "--kv-cache-memory-bytes": str((MAX_TOKENS // BLOCK_TOKENS + 8) * BLOCK_BYTES),
        "--kv-transfer-config": json.dumps(transfer),
    }
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    return [*words, *(word for pair in flags.items() for word in pair)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo")
    parser.add_argument("--stay", action="store_true", help="leave the server running at the end")
    stay = parser.parse_args().stay
    work = ROOT / "build" / "demo"
    disk = work / "cache"
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir(parents=True)
    model = installed()["model_float32"]
    env = engine_env(work / "engine", multiprocessing=True)
    env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) - 1))
    log = work / "engine.log"
    log.unlink(missing_ok=True)

    def start() -> Server:
        port = free_port()
        server = Server(command(port, model, disk), env, log, port)
        try:
            took = server.wait_ready()
        except BaseException:
            server.kill()
            raise
        say(f"engine ready on port {port} after {took:.0f} s")
        return server

    result = Report("SmolLM2-135M-Instruct, float32", "vLLM (CPU)", BLOCK_TOKENS, BLOCK_BYTES)
    say("starting the engine with Terrace (host tier 1 GiB, disk tier 1 GiB)")
    steps: Steps | None = None
    try:
        talks = conversation.make(TALKS, DAYS)
        inspect = [str(ROOT / "build" / "release" / "bin" / "terrace")]
        steps = Steps(start, inspect, disk, result, talks, say)
        steps.run()
    except EngineError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        report.write(result, work)
        if steps is not None and not stay:
            steps.server.stop()
    print("\n" + report.table(result) + "\n")
    print(f"written to {work / 'report.json'} and {work / 'report.html'}")
    if stay:
        print(f"the server goes on: http://127.0.0.1:{steps.server.port}/v1 (model `smol`)")
        print(f"stop it with: kill {steps.server.process.pid}")
    if not result.is_good:
        print("demo: an answer differed or an expected tier served nothing", file=sys.stderr)
    return 0 if result.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
