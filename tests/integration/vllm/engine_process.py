"""Runs one scenario in this process: engine_process.py MODULE.FUNCTION ASKED.json ANSWER.json."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path


def main() -> int:
    scenario, asked, answer = sys.argv[1:]
    module, _, function = scenario.partition(".")
    arguments = json.loads(Path(asked).read_text())
    if "." not in sys.path:
        sys.path.insert(0, str(Path(__file__).parents[3]))
    run = getattr(importlib.import_module(f"tests.integration.vllm.scenarios.{module}"), function)

    def say(found: object) -> None:
        """Written at once and whole, also for scenarios that end by being killed."""
        part = Path(answer).with_suffix(".part")
        part.write_text(json.dumps(found))
        part.rename(answer)

    run(say, **arguments)
    return 0


if __name__ == "__main__":
    # No interpreter teardown: an engine's threads and processes end with their parent.
    code = main()
    sys.stdout.flush()
    os._exit(code)
