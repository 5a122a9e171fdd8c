"""Makes files of the description: Grafana's JSON, Prometheus' rules and settings, the runbook."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dashboards import alarms, boards
from dashboards.alarms import Alarm
from dashboards.panel import Dashboard, Panel, chosen

# Grafana's grid is 24 wide.
STAT_WIDTH, STAT_HEIGHT, WIDTH, HEIGHT, FULL = 4, 4, 12, 8, 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOK = "docs/alerts.md"
JOB, PORT = "terrace", 6880


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        _variable("instance", "Machine", "label_values(terrace_mode, instance)"),
        _variable("engine", "Engine", 'label_values(terrace_mode{instance=~"$instance"}, engine)'),
    ]


def _thresholds(panel: Panel) -> dict[str, Any]:
    steps = panel.steps or ((0.0, "blue" if panel.kind == "stat" else "green"),)
    listed = [{"color": colour, "value": value} for value, colour in steps]
    listed[0]["value"] = None  # Whatever lies below.
    return {"mode": "absolute", "steps": listed}


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "thresholds": _thresholds(panel)}
    if panel.words:
        words = {str(value): {"text": text} for value, text in panel.words.items()}
        found["mappings"] = [{"type": "value", "options": words}]
    if panel.unit == "percentunit":
        found |= {"min": 0, "max": 1}
    if panel.kind == "timeseries":
        found["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
        if not panel.below_zero:
            found["min"] = 0
    return found


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "colorMode": "value",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    is_stat = panel.kind == "stat"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": chosen(query),
            "legendFormat": legend or "__auto",
            "instant": is_stat,
            "range": not is_stat,
        }
        for index, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "targets": targets,
    }


def places(panels: Sequence[Panel]) -> list[dict[str, int]]:
    """Where each panel lies: stats in a row on top, then two time series beside each other."""
    found, x, y, height = [], 0, 0, 0
    for panel in panels:
        is_stat = panel.kind == "stat"
        width = STAT_WIDTH if is_stat else WIDTH
        own = STAT_HEIGHT if is_stat else HEIGHT
        if x + width > FULL or (x > 0 and own != height):
            x, y = 0, y + height
        found.append({"h": own, "w": width, "x": x, "y": y})
        x, height = x + width, own
    return found


def dashboard(board: Dashboard) -> str:
    panels = zip(board.panels, places(board.panels), strict=True)
    content = {
        "uid": f"terrace-{board.name}",
        "title": board.title,
        "description": board.help,
        "tags": ["terrace"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "templating": {"list": variables()},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Terrace",
                "tags": ["terrace"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": [_panel(panel, index, place) for index, (panel, place) in enumerate(panels, 1)],
    }
    return json.dumps(content, indent=1) + "\n"


def _quoted(text: str) -> str:
    """A YAML scalar in double quotes, which JSON's are."""
    return json.dumps(text, ensure_ascii=False)


def _rule(alarm: Alarm) -> str:
    return "\n".join(
        (
            f"      - alert: {alarm.name}",
            f"        expr: {_quoted(alarm.expression)}",
            f"        for: {alarm.lasts}",
            "        labels:",
            f"          severity: {alarm.severity}",
            "        annotations:",
            f"          summary: {_quoted(alarm.summary)}",
            f"          runbook: {RUNBOOK}#{alarm.name.lower()}",
        )
    )


MADE = "Made by `./dev dashboards`; change tools/dashboards and run it again."


def rules() -> str:
    head = f"# {MADE}\n# What each alert means, and the way out: {RUNBOOK}\ngroups:\n"
    head += "  - name: terrace\n    rules:\n"
    return head + "\n".join(_rule(alarm) for alarm in alarms.ALL) + "\n"


def settings() -> str:
    return f"""\
# {MADE}
# An example: one machine, its engines found by deploy/prometheus/bridge.py on port {PORT}.
global:
  scrape_interval: 15s
  evaluation_interval: 15s

rule_files:
  - alerts.yml

scrape_configs:
  - job_name: {JOB}
    http_sd_configs:
      # One line for each machine; the bridge lists the engines of its own.
      - url: http://127.0.0.1:{PORT}/targets
        refresh_interval: 15s
"""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def runbook() -> str:
    text = f"""\
# Alerts

{MADE} A test makes each of them
fire. The rules are in `deploy/prometheus/alerts.yml`; how to use them is in
[operations.md](operations.md#dashboards-and-alerts). TerraceQuarantined may mean that answers
were wrong; none of the others does: a fault costs hits.

| alert | severity | fires |
|---|---|---|
"""
    for alarm in alarms.ALL:
        lasts = "at once" if alarm.lasts == "0m" else f"when it lasts {alarm.lasts}"
        text += f"| [{alarm.name}](#{alarm.name.lower()}) | {alarm.severity} | {lasts} |\n"
    for alarm in alarms.ALL:
        text += f"\n## {alarm.name}\n{_wrapped(alarm.means)}\n\n"
        text += f"{_wrapped(f'**Way out:** {alarm.way_out}')}\n\n"
        text += f"```promql\n{alarm.expression}\n```\n"
    return text


def files() -> dict[Path, str]:
    """Every file that is made, by its path in the repository."""
    grafana, prometheus = Path("deploy/grafana"), Path("deploy/prometheus")
    made = {grafana / f"{board.name}.json": dashboard(board) for board in boards.ALL}
    made |= {prometheus / "alerts.yml": rules(), prometheus / "prometheus.yml": settings()}
    made[Path(RUNBOOK)] = runbook()
    return made
