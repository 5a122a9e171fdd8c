"""Dashboards and alerts of deploy/, asked of a real Prometheus that scrapes a real owner.

The owner stores, loads and fails for a few seconds; the bridge of deploy/ lets Prometheus find it.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dashboards import alarms, boards, panel, render
from dashboards.alarms import Alarm
from dev import build
from engine_env import ROOT, scratch
from prometheus_server import PrometheusServer, prometheus_server, promtool, settings, until
from tests.watched_engine import PROMPT_TOKENS, WatchedEngine

BRIDGE = ROOT / "deploy" / "prometheus" / "bridge.py"
RATE, RANGE = "10s", "2m"  # What Grafana would put in for its own variables.
PROMPTS = 30
ROUNDS = 4
KVBM_PREFIXES = ("kvbm_", "dynamo_kvbm_")


@dataclass(frozen=True)
class Watched:
    engine: WatchedEngine
    prometheus: PrometheusServer
    port: int  # The bridge's.
    text: str  # The owner's metrics after the last thing that happened.


def filled_in(query: str) -> str:
    """What Grafana sends, with all machines and engines chosen."""
    words = {"$__rate_interval": RATE, "$__range": RANGE, "$instance": ".*", "$engine": ".*"}
    for name, value in words.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def scrapes(prometheus: PrometheusServer) -> float:
    return sum(value for _, value in prometheus.query("count_over_time(terrace_mode[5m])"))


def wait_scrapes(prometheus: PrometheusServer, count: int = 2) -> None:
    """Of two scrapes that end from now on, the second one began from now on, too."""
    before = scrapes(prometheus)
    until(lambda: scrapes(prometheus) >= before + count, "Prometheus scrapes the owner")


def live(engine: WatchedEngine, prometheus: PrometheusServer) -> None:
    """Some of everything, over enough scrapes for rates."""
    wait_scrapes(prometheus)
    for prompt in range(PROMPTS):
        engine.store(prompt)
        engine.settle()
    for number in range(ROUNDS):
        for prompt in range(PROMPTS):
            engine.load(prompt)
        engine.load(PROMPTS + 100 + number)  # Never stored.
        engine.refuse_a_report()
        wait_scrapes(prometheus, 1)
    for prompt in range(PROMPTS):
        engine.damage_on_disk(prompt)
    # Host is full of some of them; one of the others comes from disk.
    assert "corrupt" in {engine.load(prompt)["first_miss"] for prompt in range(PROMPTS)}
    engine.ask("PUT", "/scrub", {})
    until(lambda: not engine.ask("GET", "/status")["scrub"]["running"], "the scrub ends")
    engine.settle()
    wait_scrapes(prometheus)


@contextmanager
def bridge(directory: Path) -> Iterator[int]:
    """Its port."""
    command = [sys.executable, str(BRIDGE), "--listen", "127.0.0.1:0", "--directory"]
    process = subprocess.Popen([*command, str(directory)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = re.match(r"listening on 127\.0\.0\.1:(\d+), ", process.stdout.readline())
        assert said is not None
        yield int(said[1])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="w", dir=scratch()) as name, ExitStack() as stack:
        folder = Path(name)
        engine = WatchedEngine(folder, metrics__kvbm_names="both")
        stack.callback(engine.close)
        port = stack.enter_context(bridge(engine.sockets))
        prometheus = stack.enter_context(prometheus_server(folder, settings(folder, port, "500ms")))
        until(lambda: scrapes(prometheus) > 0, "Prometheus finds the owner")
        live(engine, prometheus)
        yield Watched(engine, prometheus, port, engine.owner.read_metrics())


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Names of samples that Terrace can export."""
    program = build.folder("release") / "bin" / "terrace"
    command = [str(program), "metrics", "--list", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: set[str] = set()
    listed = json.loads(ran.stdout)
    for row in listed["metrics"]:
        ends = {"summary": ("_sum", "_count"), "histogram": ("_sum", "_count", "_bucket")}
        found |= {row["name"] + end for end in ends.get(row["type"], ("",))}
    return found | {prefix + row["name"] for row in listed["kvbm"] for prefix in KVBM_PREFIXES}


def problems(query: str, prometheus: PrometheusServer, known: set[str]) -> list[str]:
    """What is wrong with a query: names that do not exist, no series, no number."""
    found = [f"{name} is no metric of Terrace" for name in sorted(panel.names(query) - known)]
    rows = prometheus.query(filled_in(query))
    if not rows:
        found.append("it gives nothing")
    elif all(value != value for _, value in rows):  # NaN alone.
        found.append("it gives no number")
    return [f"{text}: {query}" for text in found]


def written(board: str) -> dict[str, Any]:
    path = ROOT / "deploy" / "grafana" / f"{board}.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_files_are_what_the_description_makes() -> None:
    for path, text in render.files().items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: ./dev dashboards"
    made = {path.name for path in render.files()}
    for path in (ROOT / "deploy").rglob("*.[jy]*"):
        if path.parent.name != "compose":  # test_compose.py
            assert path.name in made, f"{path} is not made by ./dev dashboards"


@pytest.mark.parametrize("name", [board.name for board in boards.ALL])
def test_every_query_of_a_dashboard_has_data(name: str, watched: Watched, known: set[str]) -> None:
    found = []
    for one in written(name)["panels"]:
        assert one["targets"], one["title"]
        for target in one["targets"]:
            found += problems(target["expr"], watched.prometheus, known)
    assert found == []


@pytest.mark.parametrize("alarm", alarms.ALL, ids=lambda alarm: alarm.name)
def test_every_query_of_an_alert_has_data(alarm: Alarm, watched: Watched, known: set[str]) -> None:
    assert problems(alarm.query, watched.prometheus, known) == []
    watched.prometheus.query(alarm.expression)


def test_a_misspelt_metric_is_found(watched: Watched, known: set[str]) -> None:
    right = boards.ALL[0].panels[0].queries[0][0]
    assert problems(right, watched.prometheus, known) == []
    wrong = right.replace("terrace_mode", "terrace_mood")
    first, second = problems(wrong, watched.prometheus, known)
    assert first.startswith("terrace_mood is no metric")
    assert second.startswith("it gives nothing")
    with pytest.raises(ValueError, match="parse error"):
        problems(f"sum({right}", watched.prometheus, known)


def test_every_metric_is_on_a_dashboard(known: set[str]) -> None:
    queries = [query for board in boards.ALL for one in board.panels for query, _ in one.queries]
    shown = {name for query in queries for name in panel.names(query)}
    # Shown as tokens.
    missing = {name for name in known - shown if not name.startswith(KVBM_PREFIXES)}
    assert missing == {"terrace_hit_blocks_total", "terrace_match_blocks_total"}


def test_the_panels_of_kvbms_board_are_there_under_both_prefixes() -> None:
    """Title and name as docs/metrics.md has them, which is made of the table of metrics."""
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| ([^|]+) \|$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    wanted = {
        title: {prefix + name for prefix in KVBM_PREFIXES}
        for name, title in rows
        if not name.startswith("terrace_") and title != "–"
    }
    assert len(wanted) == 8
    (board,) = [one for one in boards.ALL if one.name == "kvbm"]
    assert wanted == {
        one.title: {name for query, _ in one.queries for name in panel.names(query)}
        for one in board.panels
    }


def test_the_variables_of_a_dashboard_find_the_engine(watched: Watched) -> None:
    engine = watched.engine.ask("GET", "/status")["engine"]
    for board in boards.ALL:
        found = {}
        for variable in written(board.name)["templating"]["list"][1:]:
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert asked is not None
            words = {"match[]": filled_in(asked[1])}
            found[asked[2]] = watched.prometheus.ask(f"label/{asked[2]}/values", **words)
        assert found == {"instance": [f"127.0.0.1:{watched.port}"], "engine": [engine]}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for row in text.splitlines():
        if match := re.fullmatch(r"([a-z0-9_]+)(?:\{(.*)\})? (\S+)", row):
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found


def differences(watched: Watched) -> list[str]:
    """Where Prometheus holds other series, or other counts, than the owner tells now."""
    told = samples(watched.engine.owner.read_metrics())
    held = {}
    for labels, value in watched.prometheus.query('{__name__=~"(terrace|kvbm|dynamo_kvbm)_.*"}'):
        own = {k: v for k, v in labels.items() if k not in ("instance", "engine", "job")}
        name = own.pop("__name__")
        held[name, frozenset(own.items())] = value
    counts = [key for key in told if key[0].endswith(("_total", "_count"))]
    wrong = [key for key in counts if key in held and held[key] != told[key]]
    return sorted(str(key) for key in [*wrong, *(set(held) ^ set(told))])


def test_prometheus_holds_what_the_owner_says(watched: Watched) -> None:
    # A scrape later, where something was counted just now.
    until(lambda: not differences(watched), "the counts agree")
    told = samples(watched.text)

    def of(name: str, **labels: str) -> float:
        return told[name, frozenset(labels.items())]

    # The data is real: each tier delivered, and each fault was counted.
    assert of("terrace_hit_tokens_total", tier="host") >= PROMPT_TOKENS
    assert of("terrace_hit_tokens_total", tier="disk") > 0
    assert of("terrace_transfer_blocks_total", op="offload", source="host", target="object") > 0
    assert of("terrace_disk_corrupt_blocks_total") > 0
    assert of("terrace_disk_scrub_blocks_total", result="bad") > 0
    assert of("terrace_reports_total", result="refused") == ROUNDS
    assert of("terrace_plan_ratio", tier="host", fraction="0.5") > 0


def test_promtool_finds_nothing_to_say(watched: Watched) -> None:
    folder = ROOT / "deploy" / "prometheus"
    own = re.sub(r"^(# (HELP|TYPE) )?(dynamo_)?kvbm_.*\n", "", watched.text, flags=re.MULTILINE)
    assert "kvbm_" not in own
    for ran in (
        promtool("check", "metrics", given=own),
        promtool("check", "rules", str(folder / "alerts.yml")),
        promtool("check", "config", str(folder / "prometheus.yml")),
    ):
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "FAILED" not in ran.stdout + ran.stderr


def test_promtool_misses_nothing_but_a_suffix_in_kvbms_names(watched: Watched) -> None:
    """Which KVBM's counters do not have."""
    ran = promtool("check", "metrics", given=watched.text)
    found = (ran.stdout + ran.stderr).splitlines()
    wanted = r'(dynamo_)?kvbm_\w+ counter metrics should have "_total" suffix'
    assert found
    assert [line for line in found if not re.fullmatch(wanted, line)] == []


def test_every_rule_is_evaluated(watched: Watched) -> None:
    (group,) = watched.prometheus.ask("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [alarm.name for alarm in alarms.ALL]
    for rule in group["rules"]:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]


def test_what_happened_raised_its_alerts(watched: Watched) -> None:
    raised = {row["labels"]["alertname"]: row for row in watched.prometheus.ask("alerts")["alerts"]}
    assert {"TerraceCorruptBlocks", "TerraceScrubFoundBadBlocks"} <= set(raised)
    assert "TerraceHealthRed" not in raised
    assert raised["TerraceCorruptBlocks"]["state"] == "firing"
    assert raised["TerraceCorruptBlocks"]["annotations"]["summary"].startswith("Blocks of the tier")


def test_a_paused_engine_raises_its_alert(watched: Watched) -> None:
    def is_raised() -> bool:
        rows = watched.prometheus.ask("alerts")["alerts"]
        return "TerraceSwitchedOff" in {row["labels"]["alertname"] for row in rows}

    assert not is_raised()
    watched.engine.ask("PUT", "/mode", {"mode": "paused"})
    try:
        until(is_raised, "the alert is raised")
    finally:
        watched.engine.ask("PUT", "/mode", {"mode": "on"})


def with_place(series: str) -> str:
    name, _, labels = series.partition("{")
    own = f"{labels.rstrip('}')}," if labels else ""
    return f'{name}{{{own}instance="m",engine="e"}}'


def rule_test(series: list[tuple[str, str]], firing: str) -> dict[str, Any]:
    """promtool's unit test: over these series this alert fires, or none, and no other."""
    wanted: dict[str, Any] = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "8h",
        "exp_samples": [{"labels": f'{{alertname="{firing}"}}', "value": 1}] if firing else [],
    }
    rows = [{"series": with_place(name), "values": values} for name, values in series]
    return {"interval": "1m", "input_series": rows, "promql_expr_test": [wanted]}


def rule_tests(folder: Path, tests: list[dict[str, Any]]) -> str:
    """What promtool finds wrong."""
    rules = ROOT / "deploy" / "prometheus" / "alerts.yml"
    file = folder / "tests.yml"
    content = {"rule_files": [str(rules)], "evaluation_interval": "5m", "tests": tests}
    file.write_text(json.dumps(content))
    ran = promtool("test", "rules", str(file))
    assert (ran.returncode == 0) == ("SUCCESS" in ran.stdout), ran.stdout + ran.stderr
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def at_rest(alarm: Alarm) -> list[tuple[str, str]]:
    """What makes it fire, the first series standing still."""
    (name, values), *others = alarm.fires
    return [(name, re.sub(r"[+x ].*", "x600", values)), *others]


def test_an_alert_fires_when_it_should_and_rests_else(tmp_path: Path) -> None:
    tests = [rule_test(list(alarm.fires), alarm.name) for alarm in alarms.ALL]
    tests += [rule_test(at_rest(alarm), "") for alarm in alarms.ALL]
    assert rule_tests(tmp_path, tests) == ""
    first = alarms.ALL[0]
    assert "got: nil" in rule_tests(tmp_path, [rule_test(at_rest(first), first.name)])
    assert "exp: nil" in rule_tests(tmp_path, [rule_test(list(first.fires), "")])


def test_every_alert_has_its_section_and_every_panel_its_way_out() -> None:
    page = (ROOT / render.RUNBOOK).read_text()
    rules = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    for alarm in alarms.ALL:
        assert f"\n## {alarm.name}\n" in page
        assert f"runbook: {render.RUNBOOK}#{alarm.name.lower()}\n" in rules
        assert alarm.severity in ("critical", "warning", "info")
    for board in boards.ALL:
        titles = [one.title for one in board.panels]
        assert len(set(titles)) == len(titles)
        assert all(one.help.endswith(".") and one.unit for one in board.panels)


def test_no_panel_lies_on_another() -> None:
    for board in boards.ALL:
        taken: set[tuple[int, int]] = set()
        for place in render.places(board.panels):
            xs, ys = range(place["x"], place["x"] + place["w"]), range(place["h"])
            own = {(x, place["y"] + y) for x in xs for y in ys}
            assert not own & taken
            assert max(xs) < render.FULL
            taken |= own


def answer(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    got = connection.getresponse()
    text = got.read().decode()
    connection.close()
    return got.status, text


def test_the_bridge_gives_metrics_of_owners_and_nothing_else(watched: Watched) -> None:
    code, text = answer(watched.port, "/targets")
    ((labels,),) = [[row["labels"]] for row in json.loads(text)]
    assert code == 200
    name = labels["__param_engine"]
    assert answer(watched.port, f"/metrics?engine={name}")[0] == 200
    for path in ("/metrics", "/metrics?engine=../x", f"/status?engine={name}", "/", "/mode"):
        assert answer(watched.port, path)[0] == 404


def test_the_bridge_leaves_out_who_does_not_answer(tmp_path: Path) -> None:
    with bridge(tmp_path / "none") as port:
        assert answer(port, "/targets") == (200, "[]")
    with tempfile.TemporaryDirectory(prefix="w", dir=scratch()) as name:
        with socket.socket(socket.AF_UNIX) as ended:
            ended.bind(f"{name}/{'0' * 24}-admin.sock")
        with bridge(Path(name)) as port:
            assert answer(port, "/targets") == (200, "[]")
            assert answer(port, f"/metrics?engine={'0' * 24}")[0] == 503
