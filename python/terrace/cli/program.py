"""The native program `terrace`, which does what needs no engine: settings, disk directories, …"""

from __future__ import annotations

import os
from pathlib import Path


def find() -> Path:
    """TERRACE_PROGRAM, else the copy inside the package.  Raises FileNotFoundError."""
    named = os.environ.get("TERRACE_PROGRAM", "")
    path = Path(named) if named else Path(__file__).parents[1] / "bin" / "terrace"
    if not path.is_file():
        where = "named by TERRACE_PROGRAM" if named else "in the installed package"
        raise FileNotFoundError(f"terrace: no such program {where}: {path}")
    return path
