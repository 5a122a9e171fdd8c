"""What is said of a request besides its tokens: by its client, and by the engine when it ends.

Weights for the core's eviction: whatever they say, no answer changes.  So nothing in here raises,
and what cannot be read is left out and counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from terrace import _native
from terrace._native import Hints
from terrace.connectors.vllm.log import LOGGER

SESSION_BYTES = 256
MOST_RETURN_S = 30 * 24 * 3600.0
_MOST_READ = 16  # Names of one request's hints that are looked at; there are five.
_WARN_EVERY_S = 60.0
_PRIORITIES = {
    "normal": _native.PRIORITY_NORMAL,
    "high": _native.PRIORITY_HIGH,
    "low": _native.PRIORITY_LOW,
}
_REASONS = {
    "stop": _native.ENDING_STOP,
    "length": _native.ENDING_LENGTH,
    "abort": _native.ENDING_ABORT,
    "error": _native.ENDING_ABORT,
    "repetition": _native.ENDING_LENGTH,
}
# Tokens by which models end a tool call; the engine itself only sees that they stopped.
_TOOL_CALL_ENDS = {
    "<|call|>",  # gpt-oss
    "<|eom_id|>",  # Llama 3.1 and later
    "</tool_call>",  # Qwen, Hermes, GLM
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",  # Kimi
    "<｜tool▁calls▁end｜>",  # DeepSeek
}
_LAST_TOKENS = 4  # Among which it stands: one that ends the turn may follow.


class _Wrong(Exception):
    """No hint; the text says why."""


def _session(value: Any) -> bytes:
    if not isinstance(value, str) or not value:
        raise _Wrong("is no text")
    if len(value) <= SESSION_BYTES:  # Else it is not even encoded.
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            raise _Wrong("has no UTF-8") from None
        if len(encoded) <= SESSION_BYTES:
            return encoded
    raise _Wrong(f"is longer than {SESSION_BYTES} bytes")


def _flag(flag: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, bool):
            raise _Wrong("is neither true nor false")
        return flag if value else 0

    return read


def _return_ns(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong("is no number")
    if not 0 < value <= MOST_RETURN_S:  # Nor a NaN.
        raise _Wrong(f"is not within 0 and {MOST_RETURN_S:.0f} seconds")
    return max(1, int(value * 1e9))


def _priority(value: Any) -> int:
    found = _PRIORITIES.get(value) if isinstance(value, str) else None
    if found is None:
        raise _Wrong(f"is none of {', '.join(_PRIORITIES)}")
    return found


# Name -> the field of Hints it goes to, and how it is read.
_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "session": ("session", _session),
    "session_over": ("flags", _flag(_native.HINT_SESSION_OVER)),
    "tool_call": ("flags", _flag(_native.HINT_TOOL_CALL)),
    "return_s": ("return_ns", _return_ns),
    "priority": ("priority", _priority),
}


class HintReader:
    """Reads requests' hints; of wrong ones it says the first, and then one a minute."""

    def __init__(self) -> None:
        self._next_warning = 0.0
        self._untold = 0

    def read(self, params: Any, session_id: Any = None) -> Hints:
        """Hints of `kv_transfer_params` {"terrace": {"hints": {...}}}.

        `session_id`: vLLM's own of the request, taken when the hints have none.
        """
        own = params.get("terrace") if isinstance(params, dict) else None
        asked = own.get("hints") if isinstance(own, dict) else None
        fields: dict[str, Any] = {}
        ignored = 0
        if isinstance(asked, dict):
            ignored = self._fill(fields, asked)
        elif asked is not None:
            ignored = self._wrong("hints", asked, "is no object")
        if "session" not in fields and isinstance(session_id, str) and session_id:
            try:
                fields["session"] = _session(session_id)
            except _Wrong as why:
                ignored += self._wrong("session_id", session_id, str(why))
        return Hints(**fields, ignored=ignored)

    def _fill(self, fields: dict[str, Any], asked: dict[Any, Any]) -> int:
        """Answers how many were no hints; however many there are, few are looked at."""
        ignored = max(0, len(asked) - _MOST_READ)
        for name, value in islice(asked.items(), _MOST_READ):
            try:
                if name not in _READERS:
                    raise _Wrong(f"is unknown; there are {', '.join(_READERS)}")
                field, read = _READERS[name]
                found = read(value)
            except _Wrong as why:
                ignored += self._wrong(name, value, str(why))
                continue
            fields[field] = fields.get(field, 0) | found if field == "flags" else found
        return ignored

    def _wrong(self, name: Any, value: Any, why: str) -> int:
        now = time.monotonic()
        if now < self._next_warning:
            self._untold += 1
            return 1
        LOGGER.warning(
            "terrace: hint %s of a request is ignored: %s %s%s",
            _shown(name),
            _shown(value),
            why,
            f" ({self._untold} more of late)" if self._untold else "",
        )
        self._next_warning, self._untold = now + _WARN_EVERY_S, 0
        return 1


def _shown(value: Any) -> str:
    """Of a value that a user sent: its beginning, and little work however large it is."""
    if isinstance(value, str):
        return repr(value[:32])
    if value is None or isinstance(value, bool | float):
        return repr(value)
    return f"a value of type {type(value).__name__}"


def tool_call_ends(directory: str) -> frozenset[int]:
    """Ids of the tokens by which the model in this folder ends a tool call, as far as it says."""
    try:
        text = (Path(directory) / "tokenizer_config.json").read_text(encoding="utf-8")
        added = json.loads(text)["added_tokens_decoder"]
        return frozenset(
            int(number) for number, token in added.items() if token["content"] in _TOOL_CALL_ENDS
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return frozenset()


def ending(request: Any, call_ends: frozenset[int]) -> tuple[int, int]:
    """How the answer of a request that is over ended, and its length in tokens; 0 = unknown."""
    try:
        reason = _REASONS.get(str(request.get_finished_reason()), _native.ENDING_UNKNOWN)
        answer = request.output_token_ids
        length = len(answer)
        if reason == _native.ENDING_STOP and call_ends:
            last = [answer[place] for place in range(max(0, length - _LAST_TOKENS), length)]
            if not call_ends.isdisjoint(last):
                reason = _native.ENDING_TOOL_CALL
    except Exception:  # Another release's request: a weight less.
        return _native.ENDING_UNKNOWN, 0
    return reason, length
