"""Terrace for vLLM: `kv_connector` TerraceConnector, `kv_connector_module_path` this package.

vLLM resolves the class in its front-end process too, so importing this package starts nothing and
imports no engine; the class is built on first access.
"""

from __future__ import annotations

from typing import Any

CLASS_NAME = "TerraceConnector"


def __getattr__(name: str) -> Any:
    if name == CLASS_NAME:
        from terrace.connectors.vllm.connector import TerraceConnector

        return TerraceConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register() -> None:
    """Entry point of group vllm.general_plugins: makes the short name known in each process."""
    from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory

    if CLASS_NAME not in KVConnectorFactory._registry:
        KVConnectorFactory.register_connector(CLASS_NAME, __name__, CLASS_NAME)
