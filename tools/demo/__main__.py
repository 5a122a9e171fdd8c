"""`./dev demo`: the real engine, one conversation, every tier; non-zero if an answer differs.

With `--s3`: two engines that share nothing but a bucket. With `--stack`: an engine, Prometheus and
the web page, to look around.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sessions
from demo import conversation, report, shared, stack
from demo.report import Report
from demo.server import Server, end_left_behind, free_port
from demo.shared import SharedSteps
from demo.steps import Steps
from engine_env import ROOT, engine_env, installed, transfer_config
from s3_server import BUCKET, KEY, SECRET, S3Server, s3_server

BLOCK_TOKENS = 32
MAX_TOKENS = 4096
# 135M in float32: 30 layers x 49,152 bytes (keys and values of 32 tokens, 3 heads of 64).
BLOCK_BYTES = 30 * 49_152
DAYS = 85  # lines per conversation: about 2,900 tokens
TALKS = 3  # two and a bit fill the engine's cache
WORK = ROOT / "build" / "demo"
LOG = WORK / "engine.log"
S3 = WORK / "s3"
S3_LOG = S3 / "server.log"
BEGAN = time.monotonic()


def say(text: str) -> None:
    elapsed = int(time.monotonic() - BEGAN)
    print(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", flush=True)


def settings(disk: Path) -> dict[str, Any]:
    return {"host.size": "1GiB", "disk.size": "1GiB", "disk.paths": [str(disk)]}


def shared_settings(server: S3Server) -> dict[str, Any]:
    return {
        "host.size": "512MiB",
        "object.enabled": True,
        "object.bucket": BUCKET,
        "object.endpoint": server.endpoint,
        "object.access_key": KEY,
        "object.secret_key": SECRET,
    }


def command(port: int, model: Path, chosen: dict[str, Any]) -> list[str]:
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
        "--kv-transfer-config": json.dumps(transfer_config(chosen)),
    }
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    return [*words, *(word for pair in flags.items() for word in pair)]


def fresh(folder: Path) -> Path:
    """An empty folder for what is kept; nothing of an earlier run goes on beside this one."""
    left = end_left_behind(LOG) + end_left_behind(S3_LOG)
    if left:
        say(f"ended {left} processes that an earlier demo left running")
    for old in (WORK / "cache", S3):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)
    LOG.unlink(missing_ok=True)
    return folder


def environment(work: Path) -> dict[str, str]:
    env = engine_env(work, multiprocessing=True)
    env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) - 1))
    return env


def started(chosen: dict[str, Any], port: int, env: dict[str, str], log: Path) -> Server:
    """An engine that is ready."""
    server = Server(command(port, installed()["model_float32"], chosen), env, log, port)
    try:
        took = server.wait_ready(say)
    except BaseException:
        server.kill()
        raise
    say(f"engine ready on port {port} after {took:.0f} s")
    return server


def starter(chosen: dict[str, Any]) -> Callable[[], Server]:
    """Starts one engine after another with the same settings."""
    env = environment(WORK / "engine")
    return lambda: started(chosen, free_port(), env, LOG)


def run(result: Report, stay: bool) -> Server:
    """All steps; the server is stopped unless it is to stay and all went well."""
    disk = fresh(WORK / "cache")
    say("starting the engine with Terrace (host tier 1 GiB, disk tier 1 GiB)")
    talks = conversation.make(TALKS, DAYS)
    inspect = [str(ROOT / "build" / "release" / "bin" / "terrace")]
    steps = Steps(starter(settings(disk)), inspect, disk, result, talks, say)
    is_done = False
    try:
        steps.run()
        is_done = True
    finally:
        if not (stay and is_done):
            steps.server.stop()
    return steps.server


def run_shared(result: Report) -> None:
    """The steps of two engines over one bucket; nothing of them goes on afterwards."""
    folder = fresh(S3)
    say("starting an S3 server (SeaweedFS)")
    with s3_server(folder) as store:
        say(f"it answers at {store.endpoint}; starting the first engine (host tier 512 MiB)")
        talks = conversation.make(TALKS + 1, DAYS)

        def packs() -> int:
            return sum(name.endswith(".pack") for name in store.names())

        start = starter(shared_settings(store))
        steps = SharedSteps(start, packs, store.kill, result, talks, say)
        try:
            steps.run()
        finally:
            for server in {steps.first, steps.server}:
                server.stop()


def run_stack(work: Path, first_port: int) -> int:
    """Until ^C; the exit status."""
    env = environment(work / "engine")

    def start(chosen: dict[str, Any], port: int) -> Server:
        return started(chosen, port, env, work / "engine.log")

    sockets = Path(env["XDG_RUNTIME_DIR"]) / "terrace"
    program = ROOT / "build" / "release" / "bin" / "terrace"
    ports = stack.Ports.from_first(first_port)
    try:
        stack.Stack(work, ports, start, sockets, program, say).run()
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted before all was up", file=sys.stderr)
        return 130
    return 0


def explain_talking(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/v1"
    print(f"the server goes on at {url} (OpenAI's API, model `smol`); for example:")
    print(
        f"  curl {url}/completions -H 'Content-Type: application/json' \\\n"
        '    -d \'{"model":"smol","prompt":"The ship left the port","max_tokens":20,'
        '"kv_transfer_params":{"terrace":{"ledger":true}}}\''
    )
    print(f"its log: {LOG}; stop it with: kill {server.process.pid}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./dev demo")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--stay", action="store_true", help="leave the server running at the end")
    only.add_argument("--s3", action="store_true", help="two engines that share an S3 bucket")
    only.add_argument("--stack", action="store_true", help="engine, Prometheus, page, until ^C")
    parser.add_argument("--port", type=int, default=stack.FIRST_PORT, help="--stack: the first one")
    parser.add_argument("--work", type=Path, default=WORK / "stack", help="--stack: its folder")
    options = parser.parse_args(arguments)
    if options.stack:
        return run_stack(options.work.resolve(), options.port)
    result = Report("SmolLM2-135M-Instruct, float32", "vLLM (CPU)", BLOCK_TOKENS, BLOCK_BYTES)
    server = None
    try:
        with sessions.interruptible():
            if options.s3:
                result.steps = shared.STEPS
                run_shared(result)
            else:
                server = run(result, options.stay)
    except (RuntimeError, LookupError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; ./dev demo begins the steps anew", file=sys.stderr)
        return 130
    finally:
        report.write(result, WORK)
    print("\n" + report.table(result) + "\n")
    print(f"written to {WORK / 'report.json'} and {WORK / 'report.html'}")
    if options.stay and server is not None:
        explain_talking(server)
    if not options.s3:
        print("./dev demo --s3 shows two engines that share what they computed through S3")
        print("./dev demo --stack leaves an engine, Prometheus and a small load running")
    for fault in result.faults():
        print(f"demo: {fault}", file=sys.stderr)
    return 1 if result.faults() else 0


if __name__ == "__main__":
    raise SystemExit(main())
