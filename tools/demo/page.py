"""report.html: one page that needs no other file, drawn from the content of report.json."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

COLORS = {
    "none": "#b04a3a",
    "device": "#5b7f95",
    "host": "#3f8f5f",
    "disk": "#b58a2c",
    "object": "#7a5a9e",
}
ROW_HEIGHT = 34
LEFT = 262  # where bars begin
LONGEST = 470  # of a time's bar, in a drawing that is 860 wide
WHOLE = 580  # of a prompt's bar

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;
 color:#1d2528;background:#fbfaf7}
table{border-collapse:collapse;width:100%}
td,th{padding:.3rem .5rem;border-bottom:1px solid #d8d5cc;text-align:right;vertical-align:top}
td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}
svg{width:100%;height:auto}
svg text{font-size:13px;fill:currentColor}
.bad{color:#b0301c;font-weight:600}
.key span{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin:0 .3em 0 1em}
@media(prefers-color-scheme:dark){body{color:#e6e3da;background:#1b1f21}td,th{border-color:#3a4144}
 .bad{color:#f0806a}}
"""

Row = Mapping[str, Any]


def _drawing(label: str, rows: Sequence[Row], bars: Sequence[str]) -> str:
    """An SVG with one line per step: its title, then what `bars` has for it."""
    height = ROW_HEIGHT * len(rows) + 10
    parts = [f'<svg viewBox="0 0 860 {height}" role="img" aria-label="{label}">']
    for number, (row, bar) in enumerate(zip(rows, bars, strict=True)):
        y = ROW_HEIGHT * number + 6
        title = html.escape(row["title"])
        parts.append(
            f'<g transform="translate(0 {y})"><text x="250" y="16" text-anchor="end">{title}</text>'
            f"{bar}</g>"
        )
    return "".join([*parts, "</svg>"])


def _time(row: Row, longest: float) -> str:
    """A bar of the time to the first token; linear, so that lengths can be compared."""
    width = max(3.0, LONGEST * row["ttft_ms"] / longest)
    color = COLORS.get(row["tier"], "#777")
    return (
        f'<rect x="{LEFT}" y="0" width="{width:.1f}" height="22" rx="3" fill="{color}"/>'
        f'<text x="{LEFT + 8 + width:.1f}" y="16">{row["ttft_ms"]:.0f} ms</text>'
    )


def _sources(row: Row) -> str:
    """Where the step's prompt tokens came from, as parts of one bar."""
    shares = dict(row["hit_tokens"])
    shares["none"] = row["tokens"] - sum(shares.values())
    x, parts = float(LEFT), []
    for tier, count in shares.items():
        width = WHOLE * count / max(row["tokens"], 1)
        if width > 0:
            label = "computed" if tier == "none" else tier
            parts.append(
                f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="22" '
                f'fill="{COLORS.get(tier, "#777")}"><title>{label}: {count} tokens</title></rect>'
            )
        x += width
    return "".join(parts)


def _cells(row: Row) -> str:
    note = f"<br><small>{html.escape(row['note'])}</small>" if row["note"] else ""
    verdict = ("yes" if row["equal"] else "NO") + ("" if row["expected"] else ", not as expected")
    mark = "" if row["equal"] and row["expected"] else ' class="bad"'
    return (
        f"<tr><td>{html.escape(row['step'])}</td><td>{html.escape(row['title'])}{note}</td>"
        f"<td>{row['tokens']}</td><td>{row['ttft_ms']:.0f}</td><td>{row['ratio']:.2f}</td>"
        f"<td>{row['megabytes']:.1f}</td><td>{row['blocks']}</td><td{mark}>{verdict}</td></tr>"
    )


def _verdict(faults: Sequence[str]) -> str:
    if not faults:
        return "<p>Every answer equal, every tier served.</p>"
    items = "".join(f"<li>{html.escape(fault)}</li>" for fault in faults)
    return f'<p class="bad">Not as expected:</p><ul class="bad">{items}</ul>'


def render(content: Mapping[str, Any]) -> str:
    """The page for the content of report.json."""
    rows: list[Row] = content["rows"]
    longest = max((row["ttft_ms"] for row in rows), default=1.0) or 1.0
    times = _drawing("Time to first token by step", rows, [_time(row, longest) for row in rows])
    sources = _drawing("Source of the prompt's tokens", rows, [_sources(row) for row in rows])
    seen = {"none"}.union(*(row["hit_tokens"] for row in rows))
    key = "".join(
        f'<span style="background:{color}"></span>{"computed" if tier == "none" else tier}'
        for tier, color in COLORS.items()
        if tier in seen
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Terrace demo</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>Terrace: one conversation, every tier</h1>
{_verdict(content["faults"])}
<p>{html.escape(content["model"])} on {html.escape(content["engine"])},
{content["block_tokens"]} tokens a block, {content["block_bytes"] / 1e6:.2f} MB each.</p>
<h2>Time to first token</h2>
<p>As the engine itself measures it (<code>vllm:time_to_first_token_seconds</code>).</p>{times}
<h2>Where the prompt's tokens came from</h2><p class="key">{key}</p>{sources}
<h2>Figures</h2><table><tr><th></th><th>step</th><th>tokens</th><th>TTFT ms</th>
<th>ratio to (b)</th><th>MB moved</th><th>blocks verified</th><th>equal</th></tr>
{"".join(_cells(row) for row in rows)}</table></body></html>
"""
