"""./dev dashboards: makes deploy/ and docs/alerts.md of the description in tools/dashboards."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards import render
from dev import paths, say


def main(arguments: Sequence[str]) -> int:
    if arguments and list(arguments) != ["--check"]:
        raise say.Stop(f"dashboards does not know {arguments[0]}", "it takes --check or nothing")
    stale = 0
    for path, text in render.files().items():
        file = paths.ROOT / path
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if arguments:
            say.note(f"{path} is stale; run ./dev dashboards")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            say.note(f"wrote {path}")
    return 1 if stale and arguments else 0
