"""The demo's result: a table for the terminal, report.json, and one self-contained page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from demo import page

STEPS = "abcdef"


@dataclass
class Row:
    """One step; `ttft_ms` is the median of `samples_ms`, `ratio` is to step (b)."""

    step: str
    title: str
    tier: str  # where the hit came from: none, device, host, disk, object
    tokens: int  # of the prompt
    hit_tokens: dict[str, int]
    samples_ms: list[float]
    equal: bool
    expected: bool  # the tier served exactly what it had to
    note: str = ""
    ttft_ms: float = 0.0
    ratio: float = 0.0
    megabytes: float = 0.0  # that Terrace moved to the device
    blocks: int = 0  # that Terrace verified there

    def __post_init__(self) -> None:
        self.samples_ms = [round(ms, 2) for ms in self.samples_ms]
        self.ttft_ms = sorted(self.samples_ms)[len(self.samples_ms) // 2]


@dataclass
class Report:
    """All rows and the facts of the run."""

    model: str
    engine: str
    block_tokens: int
    block_bytes: int
    rows: list[Row] = field(default_factory=list)
    steps: str = STEPS  # All that have to run.

    def add(self, row: Row) -> Row:
        # What the engine's own cache held was neither moved nor verified by Terrace.
        moved = sum(count for tier, count in row.hit_tokens.items() if tier != "device")
        row.blocks = moved // self.block_tokens
        row.megabytes = round(row.blocks * self.block_bytes / 1e6, 1)
        self.rows.append(row)
        # All anew: those that ran before (b) have theirs only now.
        base = next((r.ttft_ms for r in self.rows if r.step == "b"), 0.0)
        for each in self.rows:
            each.ratio = round(each.ttft_ms / base, 2) if base > 0 else 0.0
        return row

    def faults(self) -> list[str]:
        """What speaks against this run, a sentence each; none = every answer and tier is right."""
        found = []
        for row in self.rows:
            if not row.equal:
                found.append(f"({row.step}) {row.title}: an answer differs")
            if not row.expected:
                served = " ".join(f"{t} {n}" for t, n in row.hit_tokens.items()) or "nothing"
                what = f"not what {row.tier} had to serve: {served}"
                found.append(f"({row.step}) {row.title}: {what}")
            if min(row.samples_ms) <= 0:
                found.append(
                    f"({row.step}) {row.title}: a time to first token that is not positive"
                )
        ran = "".join(row.step for row in self.rows)
        found += [f"({step}) did not run" for step in self.steps if step not in ran]
        return found


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
    faults = report.faults()
    content = {**asdict(report), "good": not faults, "faults": faults}
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "report.html").write_text(page.render(content))
