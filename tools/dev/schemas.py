"""The schema of compose files and a validator for tests."""

from __future__ import annotations

from pathlib import Path

from dev import wheels

COMPOSE = Path("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"


def folder() -> Path:
    """Where they lie, made or not."""
    return wheels.folder("schemas")


def ensure() -> Path:
    """The folder, made when absent or damaged."""
    return wheels.ensure("schemas", COMPOSE)
