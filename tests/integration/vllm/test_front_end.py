"""Stats of the connector in the engine's front end, by vLLM's own classes, without an engine.

Alone and below MultiConnector, which looks its children's classes up by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine_env import engine_env

PROGRAM = """
import json, sys
from types import SimpleNamespace
from prometheus_client import generate_latest
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorLogging, KVConnectorProm
from terrace.connectors.vllm import stats

child = {"kv_connector": "TerraceConnector", "kv_role": "kv_both",
         "kv_connector_module_path": "terrace.connectors.vllm"}
data = stats.payload({"terrace_hit_tokens host": 5}).data
if sys.argv[1] == "alone":
    config = KVTransferConfig(**child)
else:
    more = {"connectors": [child]}
    config = KVTransferConfig(kv_connector="MultiConnector", kv_role="kv_both",
                              kv_connector_extra_config=more)
    data = {"TerraceConnector": data}
# In this order an engine makes them, before it records anything.
logs = KVConnectorLogging(config)
prom = KVConnectorProm(SimpleNamespace(kv_transfer_config=config), ["model_name", "engine"],
                       {0: ["m", "0"]})
lines = []
for _ in range(2):
    logs.observe(json.loads(json.dumps(data)))
    prom.observe(json.loads(json.dumps(data)), 0)
logs.log(lambda *words: lines.append(words))
rows = generate_latest().decode().splitlines()
told = [row for row in rows if row.startswith("vllm:terrace_hit")]
with open(sys.argv[2], "w") as answer:
    json.dump({"told": told, "lines": lines}, answer)
"""


@pytest.mark.parametrize("place", ["alone", "below MultiConnector"])
def test_gains_reach_the_engines_metrics_and_not_its_log(place: str, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    with (tmp_path / "output.txt").open("w") as output:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, place, str(answer)],
            env=engine_env(tmp_path),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, (tmp_path / "output.txt").read_text()[-2000:]
    found: dict[str, Any] = json.loads(answer.read_text())
    row = 'vllm:terrace_hit_tokens_total{engine="0",model_name="m",tier="host"} 10.0'
    assert found["told"][0] == row
    assert found["lines"] == []
