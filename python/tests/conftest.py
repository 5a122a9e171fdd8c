"""The connector's module over a base class that needs no engine."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.engine_objects import Base

BASE = "vllm.distributed.kv_transfer.kv_connector.v1.base"
CONNECTOR = "terrace.connectors.vllm.connector"


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The connector's module over a base class that needs no engine, and serves everything."""
    base = ModuleType(BASE)
    names = ("KVConnectorMetadata", "KVConnectorWorkerMetadata", "SupportsHMA")
    made: dict[str, Any] = {name: type(name, (), {}) for name in names}
    made |= {"KVConnectorBase_V1": Base, "KVConnectorRole": SimpleNamespace(SCHEDULER=1, WORKER=2)}
    made["KVConnectorTransferResults"] = SimpleNamespace
    vars(base).update(made)
    parts = BASE.split(".")
    for count in range(1, len(parts)):
        name = ".".join(parts[:count])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, BASE, base)
    monkeypatch.delitem(sys.modules, CONNECTOR, raising=False)
    module = importlib.import_module(CONNECTOR)
    monkeypatch.setattr(module.TerraceConnector, "_refused", lambda _self: "")
    monkeypatch.setattr(module.TerraceConnector, "_announce", lambda _self: None)
    monkeypatch.setattr(module.compat, "failure_policy", lambda _config: "recompute")
    yield module
    sys.modules.pop(CONNECTOR, None)
