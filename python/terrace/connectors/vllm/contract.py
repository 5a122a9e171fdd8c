"""The connector contract of an installed vLLM, as plain data that can be kept and compared.

`python -m terrace.connectors.vllm.contract` prints it; contracts/ keeps a copy per tested version.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib import resources
from typing import Any

Contract = dict[str, dict[str, str]]

_CLASSES = (
    ("vllm.distributed.kv_transfer.kv_connector.v1.base", "KVConnectorBase_V1"),
    ("vllm.distributed.kv_transfer.kv_connector.v1.base", "SupportsHMA"),
    ("vllm.distributed.kv_transfer.kv_connector.v1.base", "KVConnectorMetadata"),
    ("vllm.distributed.kv_transfer.kv_connector.v1.base", "KVConnectorWorkerMetadata"),
    ("vllm.distributed.kv_transfer.kv_connector.v1.base", "KVConnectorTransferResults"),
    ("vllm.v1.outputs", "KVConnectorOutput"),
    ("vllm.distributed.kv_events", "BlockStored"),
    ("vllm.distributed.kv_events", "BlockRemoved"),
    ("vllm.distributed.kv_events", "AllBlocksCleared"),
    ("vllm.v1.core.sched.output", "SchedulerOutput"),
    ("vllm.v1.core.sched.output", "NewRequestData"),
    ("vllm.v1.core.sched.output", "CachedRequestData"),
    ("vllm.v1.kv_cache_interface", "KVCacheTensor"),
    ("vllm.v1.kv_cache_interface", "KVCacheGroupSpec"),
)


def _signature(function: Any) -> str:
    """Parameter names and kinds; annotations and defaults change too often to say much."""
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        is_star = parameter.kind is parameter.VAR_POSITIONAL
        is_double = parameter.kind is parameter.VAR_KEYWORD
        mark = "*" if is_star else "**" if is_double else ""
        optional = "" if parameter.default is parameter.empty else "?"
        parts.append(f"{mark}{parameter.name}{optional}")
    return f"({', '.join(parts)})"


def _member(value: Any) -> str | None:
    if isinstance(value, property):
        kind, function = "property", value.fget
    elif isinstance(value, classmethod):
        kind, function = "classmethod", value.__func__
    elif inspect.isfunction(value):
        kind, function = "method", value
    else:
        return None
    if getattr(function, "__isabstractmethod__", False):
        kind = f"abstract {kind}"
    return kind if kind.endswith("property") else f"{kind} {_signature(function)}"


def describe(cls: type) -> dict[str, str]:
    """Public members (and the constructor) that the class itself defines, and its fields."""
    described = {}
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in ("__init__", "_cache_hit_source"):
            continue
        text = _member(value)
        if name == "_cache_hit_source":
            text = "attribute"
        if text is not None:
            described[name] = text
    for name in getattr(cls, "__dataclass_fields__", {}):
        described[name] = "field"
    for name in getattr(cls, "__struct_fields__", ()):
        described[name] = "field"
    return dict(sorted(described.items()))


def read_installed() -> Contract:
    found: Contract = {}
    for module, name in _CLASSES:
        cls = getattr(__import__(module, fromlist=[name]), name, None)
        if isinstance(cls, type):
            found[name] = describe(cls)
    return found


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())[1:]


def _takes(ours: Any, theirs: Any) -> bool:
    """Whichever call fits their method fits ours, by position and by name."""
    loose = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    own, asked = _parameters(ours), _parameters(theirs)
    kinds = {one.kind for one in own}
    if not {one.kind for one in asked if one.kind in loose} <= kinds:
        return False
    named = [one for one in own if one.kind not in loose]
    wanted = [one for one in asked if one.kind not in loose]
    if [one.name for one in named[: len(wanted)]] != [one.name for one in wanted]:
        return False
    required = [one.name for one in named if one.default is one.empty]
    return set(required) <= {one.name for one in wanted if one.default is one.empty}


def refused_calls(ours: type) -> list[str]:
    """Methods that its bases would have it called with in another way than it can take."""
    theirs: dict[str, Any] = {}
    for base in reversed(ours.__mro__[1:-1]):
        theirs |= {name: one for name, one in vars(base).items() if inspect.isfunction(one)}
    mine = {name: one for name, one in vars(ours).items() if inspect.isfunction(one)}
    shared = sorted(theirs.keys() & mine.keys() - {"__init__"})
    return [
        f"{name}{_signature(theirs[name])}"
        for name in shared
        if not _takes(mine[name], theirs[name])
    ]


def kept(version: str) -> Contract | None:
    """The contract this connector was tested with, for the version's minor release."""
    minor = ".".join(version.split(".")[:2])
    file = resources.files("terrace.connectors.vllm") / "contracts" / f"vllm-{minor}.json"
    if not file.is_file():
        return None
    listed: Contract = json.loads(file.read_text())
    return listed


def differences(tested: Contract, installed: Contract) -> list[str]:
    """One line per member that is gone, new or changed."""
    lines = []
    for cls in sorted(tested.keys() | installed.keys()):
        ours, theirs = tested.get(cls, {}), installed.get(cls, {})
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                old, new = ours.get(name, "absent"), theirs.get(name, "absent")
                lines.append(f"{cls}.{name}: {old} -> {new}")
    return lines


if __name__ == "__main__":
    json.dump(read_installed(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
