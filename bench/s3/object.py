"""object.s3.get and object.s3.put: starts an S3 server and the program that measures on it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from engine_env import ROOT
from s3_server import s3_server

PROGRAM = ROOT / "build" / "release" / "bench" / "s3_store_bench"


def main() -> int:
    scratch = ROOT / "build" / "bench"
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="s3-", dir=scratch) as folder,
        s3_server(Path(folder)) as server,
    ):
        return subprocess.run([str(PROGRAM), *server.arguments()], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
