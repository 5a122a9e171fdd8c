"""Imports the engine once and forks servers from then on: nursery_process.py, asked line by line.

A line of JSON, {"arguments": [...], "environment": {...}, "output": path}, starts one server in a
session of its own; the answer is its process id.  Its core and worker are forked, too.  So a start
costs what the engine does, not what importing it costs, three times over.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from typing import Any


def prepare() -> None:
    """Everything that a server's processes import, and `fork` for those that it starts."""
    from vllm.utils import system_utils

    setattr(  # noqa: B010 (mypy refuses the assignment)
        system_utils, "get_mp_context", lambda: multiprocessing.get_context("fork")
    )
    import vllm.entrypoints.launchers.api_server.entry
    import vllm.model_executor.models.llama
    import vllm.v1.engine.core
    import vllm.v1.executor.multiproc_executor
    import vllm.v1.worker.cpu_worker  # noqa: F401


def serve(asked: dict[str, Any]) -> None:
    """In the child; does not return."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["api_server", *asked["arguments"]]
    from vllm.entrypoints.launchers.api_server.entry import main as serve_main

    code = 1
    try:
        serve_main()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody here waits for them.
    prepare()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            serve(json.loads(line))
        print(json.dumps({"process": child}), flush=True)


if __name__ == "__main__":
    main()
