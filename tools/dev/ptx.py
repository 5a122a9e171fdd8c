"""./dev ptx: makes the CUDA kernels' PTX, which is committed; --check: only says if it is stale.

Its first line holds a hash of the sources, so that looking needs no CUDA compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dev import paths, run, say
from dev.check.finding import Finding
from dev.check.tree import Tree

KERNELS = "terrace/memory/device/cuda/copy_kernel.cu"
PTX = "terrace/memory/device/cuda/copy_kernel.ptx"
SOURCES = (
    KERNELS,
    "terrace/memory/device/cuda/page_kernel_internal.h",
    "terrace/block/checksum_kernel.h",
)
# Turing, the oldest card that today's compilers know; any newer card's driver goes on from there.
ARCHITECTURE = "compute_75"
# The PTX that drivers of CUDA 10 read. nvcc writes its own newest version, which only a driver as
# new as itself takes; the kernels use nothing that is newer.
VERSION = "6.3"
CHECKED_FOR = ("sm_75", "sm_80", "sm_90")
FIRST_LINE = re.compile(r"// sources sha256 ([0-9a-f]{64})\b")


def digest(read: Callable[[str], str]) -> str:
    total = hashlib.sha256()
    for path in SOURCES:
        total.update(f"{path}\0{read(path)}\0".encode())
    return total.hexdigest()


def check(tree: Tree) -> Iterator[Finding]:
    """The committed PTX is of the sources beside it."""
    if KERNELS not in tree.files:
        return
    found = FIRST_LINE.match(tree.text(PTX)) if PTX in tree.files else None
    if found is None or found.group(1) != digest(tree.text):
        yield Finding(PTX, 1, "ptx", "is not of its sources; run ./dev ptx, which needs nvcc")


def _tool(name: str) -> str:
    """From the toolkit's own folder too, which is often on nobody's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")
    if found is None:
        raise say.Stop(
            f"ptx needs {name} and found none",
            "install CUDA's compiler (Debian: nvidia-cuda-toolkit, or NVIDIA's cuda-nvcc); no GPU "
            "is needed. Terrace itself is built without",
        )
    return found


def make() -> None:
    target = paths.ROOT / PTX
    raw = paths.BUILD / "ptx" / "copy_kernel.ptx"
    raw.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c++20", "--expt-relaxed-constexpr", "-I.", f"-arch={ARCHITECTURE}", "-ptx"]
    status, output = run.captured([_tool("nvcc"), *flags, "-o", raw, KERNELS])
    if status != 0:
        raise say.Stop("nvcc refuses the kernels", output)
    text, count = re.subn(r"^\.version .*$", f".version {VERSION}", raw.read_text(), flags=re.M)
    if count != 1:
        raise say.Stop("nvcc wrote PTX without one .version", f"look at {raw}")
    first = f"// sources sha256 {digest(lambda path: (paths.ROOT / path).read_text())}; ./dev ptx\n"
    raw.write_text(first + text)
    for architecture in CHECKED_FOR:
        command: list[str | Path] = [_tool("ptxas"), f"-arch={architecture}", "-o", os.devnull, raw]
        status, output = run.captured(command)
        if status != 0:
            raise say.Stop(f"ptxas refuses the PTX for {architecture}", output)
    shutil.copy(raw, target)
    say.note(f"wrote {PTX}")


def main(arguments: Sequence[str]) -> int:
    if arguments and list(arguments) != ["--check"]:
        raise say.Stop(f"ptx does not know {arguments[0]}", "it takes --check or nothing")
    if not arguments:
        make()
        return 0
    files = (*SOURCES, *((PTX,) if (paths.ROOT / PTX).exists() else ()))
    found = list(check(Tree(paths.ROOT, files)))
    for finding in found:
        say.line(str(finding))
    return 1 if found else 0
