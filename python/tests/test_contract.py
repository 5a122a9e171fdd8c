"""The kept contract is the installed engine's, and the connector fits it.

Everything that imports vLLM runs in one process of its own, in the environment of the integration
tests.
"""

from __future__ import annotations

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
from terrace.connectors.vllm import contract, keys

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
    "abstract": sorted(getattr(cls, "__abstractmethods__", ())),
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
