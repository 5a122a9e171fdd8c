"""Terrace's lines in the engine's log, below vLLM's logger: its level and handlers apply."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from terrace._native import TerraceError

LOGGER = logging.getLogger("vllm.terrace")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
DRAIN_EVERY_S = 1.0


class Drain:
    """Hands the core's log lines on, at most once a second."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._next = 0.0

    def due(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + DRAIN_EVERY_S
            self.now()

    def now(self) -> None:
        try:
            text = self._read()
        except TerraceError as error:
            LOGGER.info("terrace: log not read: %s", error)
            return
        for line in text.splitlines():
            level, _, text = line.partition(" ")
            LOGGER.log(_LEVELS.get(level, logging.INFO), "terrace: %s", text)
