"""Options of the integration tests."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        default=False,
        help="every pair of dtype and block size against an engine without Terrace, and restarted",
    )
    parser.addoption(
        "--hybrid-model",
        default="",
        help="folder of a real model of several KV groups, for test_groups.py",
    )
