"""The engine without Terrace answers every turn: control_process.py ASKED.json ANSWER.json.

Twice: all conversations side by side, then each turn alone over an emptied cache.  A turn whose two
answers differ, or whose choice was nearly a tie somewhere, is not steady: it proves nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.integration.vllm.engine import Engine
from tests.soak import conversations
from tests.soak.conversations import ANSWER_TOKENS, CONVERSATIONS, TURNS

NEARLY_TIED = 1e-3  # Nats; sums in another order differ by some 1e-5.


def smallest_gap(answer: dict[str, Any]) -> float:
    """Between the first and the second choice, over all tokens of an answer."""
    gaps: list[float] = []
    for step in answer["logprobs"][0]:
        best = sorted((logprob for _, logprob in step), reverse=True)
        gaps.append(best[0] - best[1])
    return min(gaps)


def answer_all(engine: Engine) -> list[dict[str, Any]]:
    encode = engine.llm.get_tokenizer().encode
    answers: list[list[list[int]]] = [[] for _ in range(CONVERSATIONS)]
    turns = []
    for number in range(TURNS):
        prompts = [
            conversations.prompt(encode, conversation, answers[conversation])
            for conversation in range(CONVERSATIONS)
        ]
        given = engine.generate(prompts, max_tokens=ANSWER_TOKENS)
        for conversation, (prompt, answer) in enumerate(zip(prompts, given, strict=True)):
            tokens = answer["tokens"][0]
            answers[conversation].append(tokens)
            turn = {"conversation": conversation, "number": number, "prompt": prompt}
            turns.append(turn | {"answer": tokens, "gap": smallest_gap(answer)})
    return turns


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    engine = Engine(asked["model"], settings=None)
    turns = answer_all(engine)
    for turn in turns:
        engine.forget_local()
        alone = engine.one(turn["prompt"], max_tokens=ANSWER_TOKENS)["tokens"][0]
        turn["is_steady"] = alone == turn["answer"] and turn.pop("gap") >= NEARLY_TIED
    part = Path(sys.argv[2]).with_suffix(".part")
    part.write_text(json.dumps(turns))
    part.rename(sys.argv[2])
    # No interpreter teardown: an engine's threads end with the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
