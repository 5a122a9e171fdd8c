"""object.s3…: starts an S3 server and the programs that measure on it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from engine_env import ROOT
from s3_server import s3_server

PROGRAMS = ROOT / "build" / "release" / "bench"


def main() -> int:
    scratch = ROOT / "build" / "bench"
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="s3-", dir=scratch) as folder,
        s3_server(Path(folder)) as server,
    ):
        commands = (
            [str(PROGRAMS / "s3_store_bench"), *server.arguments()],
            [str(PROGRAMS / "object_read_bench"), "s3", *server.arguments()],
        )
        codes = [subprocess.run(command, check=False).returncode for command in commands]
        return max(codes)


if __name__ == "__main__":
    sys.exit(main())
