"""The demo's result: a table for the terminal, report.json, and one self-contained page with plots."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

COLORS = {"none": "#b04a3a", "device": "#5b7f95", "host": "#3f8f5f", "disk": "#b58a2c"}


@dataclass
class Row:
    """One step; `ttft_ms` is the median of `samples_ms`, `ratio` is to step (b)."""

    step: str
    title: str
    tier: str  # where the hit came from: none, device, host, disk
    tokens: int  # of the prompt
    hit_tokens: dict[str, int]
    samples_ms: list[float]
    equal: bool
    expected: bool  # the tier served exactly what it had to
    note: str = ""
    ttft_ms: float = 0.0
    ratio: float = 0.0
    megabytes: float = 0.0
    blocks: int = 0

    def __post_init__(self) -> None:
        ordered = sorted(self.samples_ms)
        self.ttft_ms = round(ordered[len(ordered) // 2], 2)


@dataclass
class Report:
    """All rows and the facts of the run."""

    model: str
    engine: str
    block_tokens: int
    block_bytes: int
    rows: list[Row] = field(default_factory=list)
    decode_ms: float = 0.0  # One decode step, part of every sample until finish().

    def add(self, row: Row) -> Row:
        base = next((r.ttft_ms for r in self.rows if r.step == "b"), None)
        row.ratio = round(row.ttft_ms / base, 2) if base else (1.0 if row.step == "b" else 0.0)
        row.blocks = sum(row.hit_tokens.values()) // self.block_tokens
        row.megabytes = round(row.blocks * self.block_bytes / 1e6, 1)
        self.rows.append(row)
        return row

    def finish(self) -> None:
        """Takes the second token's time off; ratios of steps that ran before (b)."""
        for row in self.rows:
            row.samples_ms = [round(max(0.0, ms - self.decode_ms), 2) for ms in row.samples_ms]
            row.ttft_ms = sorted(row.samples_ms)[len(row.samples_ms) // 2]
        base = next((r.ttft_ms for r in self.rows if r.step == "b"), 0.0)
        for row in self.rows:
            row.ratio = round(row.ttft_ms / base, 2) if base else 0.0

    @property
    def is_good(self) -> bool:
        return bool(self.rows) and all(row.equal and row.expected for row in self.rows)


HEAD = ("", "step", "tokens", "from", "TTFT ms", "x (b)", "MB", "verified", "equal")


def table(report: Report) -> str:
    lines = [HEAD]
    for row in report.rows:
        source = " ".join(f"{tier} {count}" for tier, count in row.hit_tokens.items() if count)
        lines.append(
            (
                row.step,
                row.title,
                str(row.tokens),
                source or "computed",
                f"{row.ttft_ms:.0f}",
                f"{row.ratio:.2f}",
                f"{row.megabytes:.1f}",
                str(row.blocks),
                ("yes" if row.equal else "NO") + ("" if row.expected else " (NOT AS EXPECTED)"),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    left = {0, 1, 3, 8}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {**asdict(report), "good": report.is_good}
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "report.html").write_text(_page(report))


def _bars(report: Report) -> str:
    """One horizontal bar per step, on a logarithmic axis would hide little: linear, with numbers."""
    longest = max((row.ttft_ms for row in report.rows), default=1.0) or 1.0
    height = 34 * len(report.rows) + 10
    parts = [
        f'<svg viewBox="0 0 860 {height}" role="img" aria-label="Time to first token by step">'
    ]
    for number, row in enumerate(report.rows):
        y = 34 * number + 6
        width = max(3.0, 470 * row.ttft_ms / longest)
        color = COLORS.get(row.tier, "#777")
        parts.append(
            f'<text x="250" y="{y + 16}" text-anchor="end">{html.escape(row.title)}</text>'
            f'<rect x="262" y="{y}" width="{width:.1f}" height="22" rx="3" fill="{color}"/>'
            f'<text x="{270 + width:.1f}" y="{y + 16}">{row.ttft_ms:.0f} ms</text>'
        )
    return "".join([*parts, "</svg>"])


def _sources(report: Report) -> str:
    """Where each step's prompt tokens came from, as stacked bars."""
    height = 34 * len(report.rows) + 10
    parts = [f'<svg viewBox="0 0 860 {height}" role="img" aria-label="Source of prompt tokens">']
    for number, row in enumerate(report.rows):
        y, x = 34 * number + 6, 262.0
        parts.append(
            f'<text x="250" y="{y + 16}" text-anchor="end">{html.escape(row.title)}</text>'
        )
        shares = dict(row.hit_tokens)
        shares["none"] = row.tokens - sum(shares.values())
        for tier, count in shares.items():
            width = 580 * count / max(row.tokens, 1)
            if width > 0:
                label = "computed" if tier == "none" else tier
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" '
                    f'fill="{COLORS.get(tier, "#777")}"><title>{label}: {count} tokens</title></rect>'
                )
            x += width
    return "".join([*parts, "</svg>"])


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;
color:#1d2528;background:#fbfaf7}table{border-collapse:collapse;width:100%}td,th{padding:.3rem .5rem;
border-bottom:1px solid #d8d5cc;text-align:right}td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}
svg{width:100%;height:auto}svg text{font-size:13px;fill:currentColor}.bad{color:#b0301c;font-weight:600}
.key span{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin:0 .3em 0 1em}
@media(prefers-color-scheme:dark){body{color:#e6e3da;background:#1b1f21}td,th{border-color:#3a4144}}"""


def _page(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(row.step)}</td><td>{html.escape(row.title)}"
        f"{'<br><small>' + html.escape(row.note) + '</small>' if row.note else ''}</td>"
        f"<td>{row.tokens}</td><td>{row.ttft_ms:.0f}</td><td>{row.ratio:.2f}</td>"
        f"<td>{row.megabytes:.1f}</td><td>{row.blocks}</td>"
        f"<td{'' if row.equal and row.expected else ' class=bad'}>{'yes' if row.equal else 'NO'}</td></tr>"
        for row in report.rows
    )
    key = "".join(
        f'<span style="background:{color}"></span>{"computed" if tier == "none" else tier}'
        for tier, color in COLORS.items()
    )
    verdict = "Every answer equal, every tier served." if report.is_good else "NOT as expected."
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Terrace demo</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style>
<h1>Terrace: one conversation, every tier</h1>
<p class="{"" if report.is_good else "bad"}">{verdict}</p>
<p>{html.escape(report.model)} on {html.escape(report.engine)}, {report.block_tokens} tokens a block,
{report.block_bytes / 1e6:.2f} MB each.</p>
<h2>Time to first token</h2>{_bars(report)}
<h2>Where the prompt's tokens came from</h2><p class="key">{key}</p>{_sources(report)}
<h2>Figures</h2><table><tr><th></th><th>step</th><th>tokens</th><th>TTFT ms</th><th>ratio to (b)</th>
<th>MB moved</th><th>blocks verified</th><th>equal</th></tr>{rows}</table></html>
"""
