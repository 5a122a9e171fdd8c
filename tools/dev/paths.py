"""Where things lie: the repository, its build folder, the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
REQUIREMENTS = ROOT / "requirements"
ENV_FILE = BUILD / "env.json"


def cache() -> Path:
    """What is dear to make lies here: $TERRACE_CACHE_DIR, else terrace/ in the user's cache."""
    own = os.environ.get("TERRACE_CACHE_DIR")
    if own:
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "terrace"


def relative(path: Path) -> str:
    """The path as a person at the repository's root would type it."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)
