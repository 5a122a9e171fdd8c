"""Makes `agents.jsonl` of the unpacked agent trace: python bench/vllm/sessions/make.py FOLDER

Of each session of mini-swe-agent that has enough calls, what each call's prompt added to the one
before it, cut to an eighth: the small model has a quarter of the context of those that were served,
and a round on two cores has to end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CALLS = 10
LEAST_CALLS = 8
SHARE = 8


def turns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of their time; each prompt of this agent begins with the whole one before it."""
    rows = sorted(rows, key=lambda row: row["timestamp"])[:CALLS]
    found, before = [], ""
    for row in rows:
        prompt = row["input"]
        if not prompt.startswith(before):
            raise ValueError(f"a prompt of {row['session_id']} does not go on from the one before")
        added = prompt[len(before) :]
        found.append(
            {
                "at_s": round((row["timestamp"] - rows[0]["timestamp"]) / 1e6, 3),
                "text": added[: max(1, len(added) // SHARE)],
                "answer_chars": len(row["output"]) // SHARE,
            }
        )
        before = prompt
    return found


def main() -> int:
    folder = Path(sys.argv[1])
    with Path(__file__).with_name("agents.jsonl").open("w") as kept:
        for path in sorted((folder / "miniswe").glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            if len(rows) >= LEAST_CALLS:
                session = {"session": path.name.split(".")[0], "turns": turns(rows)}
                kept.write(json.dumps(session, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
