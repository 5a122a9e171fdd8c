"""The kept contract is the installed engine's, and the connector fits it.

Everything that imports vLLM runs in one process of its own, in the environment of the integration
tests.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine_env import engine_env
from terrace.connectors.vllm import contract

PROGRAM = """
import inspect, json, sys
from types import SimpleNamespace
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1 import base, supports_hma
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.sampling_params import SamplingParams
from vllm.utils.func_utils import supports_kw
from vllm.v1.request import Request
from terrace.connectors import vllm as package
from terrace.connectors.vllm import connector, contract, keys

package.register()
package.register()
cls = KVConnectorFactory.get_connector_class_by_name("TerraceConnector")
wrong = []
for name, member in inspect.getmembers(base.KVConnectorBase_V1, inspect.isfunction):
    own = getattr(cls, name)
    if own is not member and name != "__init__":
        theirs = list(inspect.signature(member).parameters)
        ours = list(inspect.signature(own).parameters)
        if ours != theirs:
            wrong.append([name, theirs, ours])
request = Request("r", [1, 2, 3], SamplingParams(), None)
json.dump({
    "version": vllm.__version__,
    "contract": contract.read_installed(),
    "hma": supports_hma(cls),
    "abstract": sorted(connector.UNKNOWN_MEMBERS),
    "refused": contract.refused_calls(cls),
    "takes_kv_cache_config": supports_kw(cls, "kv_cache_config"),
    "wrong": wrong,
    "strange": keys._strange(request),
}, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work = tmp_path_factory.mktemp("contract")
    answer = work / "answer.json"
    with (work / "output.txt").open("w") as output:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(answer)],
            env=engine_env(work),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, (work / "output.txt").read_text()[-2000:]
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def test_the_kept_contract_equals_the_installed_engines(installed: dict[str, Any]) -> None:
    kept = contract.kept(installed["version"])
    assert kept is not None
    assert contract.differences(kept, installed["contract"]) == []


def test_the_connector_implements_the_contract(installed: dict[str, Any]) -> None:
    assert installed["abstract"] == []
    assert installed["refused"] == []
    assert installed["wrong"] == []
    assert installed["hma"]
    assert installed["takes_kv_cache_config"]


def test_every_attribute_of_the_engines_request_was_read(installed: dict[str, Any]) -> None:
    assert installed["strange"] == ""


def test_differences_name_member_and_both_forms() -> None:
    tested = {"A": {"f": "method (self)", "gone": "method (self)"}}
    found = {"A": {"f": "method (self, x)", "new": "field"}}
    assert contract.differences(tested, found) == [
        "A.f: method (self) -> method (self, x)",
        "A.gone: method (self) -> absent",
        "A.new: absent -> field",
    ]


def test_every_kept_contract_names_the_hooks_that_are_used() -> None:
    folder = Path(contract.__file__).parent / "contracts"
    for file in folder.glob("vllm-*.json"):
        base = json.loads(file.read_text())["KVConnectorBase_V1"]
        assert "get_num_new_matched_tokens" in base, file.name


class Ours:
    def load(self, context: Any, **more: Any) -> None: ...

    def end(self, request: Any, blocks: Any, reason: Any = None) -> None: ...


def method(*parameters: str) -> Any:
    """One that takes these besides `self`; `*x` and `**x` are loose, `.x` by name alone."""
    kinds = {
        "": inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ".": inspect.Parameter.KEYWORD_ONLY,
        "*": inspect.Parameter.VAR_POSITIONAL,
        "**": inspect.Parameter.VAR_KEYWORD,
    }

    def made(*_args: Any, **_kwargs: Any) -> None: ...

    listed = []
    for text in ("self", *parameters):
        name = text.lstrip(".*").removesuffix("?")
        default = None if text.endswith("?") else inspect.Parameter.empty
        kind = kinds[text[: len(text.removesuffix("?")) - len(name)]]
        listed.append(inspect.Parameter(name, kind, default=default))
    setattr(made, "__signature__", inspect.Signature(listed))  # noqa: B010 (mypy knows no such)
    return made


@pytest.mark.parametrize(
    ("name", "parameters", "refused"),
    [
        ("load", ["context", "**more"], ""),
        ("load", ["context"], ""),
        ("load", ["context", ".stream"], "load(self, context, stream)"),
        ("load", ["context", "stream", "**more"], "load(self, context, stream, **more)"),
        ("load", ["forward"], "load(self, forward)"),
        ("load", [], "load(self)"),
        ("load", ["context", "*more"], "load(self, context, *more)"),
        ("end", ["request", "blocks"], ""),
        ("end", ["request", "blocks?"], "end(self, request, blocks?)"),
        ("another", ["anything"], ""),
    ],
)
def test_a_call_that_a_method_cannot_take_is_refused_by_name(
    name: str, parameters: list[str], refused: str
) -> None:
    deeper = type("Deeper", (), {name: method(*parameters)})
    base = type("Base", (deeper,), {})
    made = type("Mine", (base,), dict(vars(Ours)))
    assert contract.refused_calls(made) == ([refused] if refused else [])
