"""The page's first picture of a day, and a scrape of metrics, beside their goals."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("python", "tools", ".")]

from bench.vllm.lines import emit  # noqa: E402

from browser import browser  # noqa: E402
from engine_env import LIBRARY, scratch  # noqa: E402
from s3_server import free_ports  # noqa: E402

os.environ.setdefault("TERRACE_LIBRARY", str(LIBRARY))

from tests.page_stand_in import Figures, StandIn, stand_in  # noqa: E402
from tests.test_real_library import until  # noqa: E402
from tests.watched_engine import WatchedEngine  # noqa: E402

RENDER_GOAL_S, SCRAPE_GOAL_S = 1.0, 0.02
PAGES, SCRAPES, PROMPTS = 11, 200, 30
RENDERED = "document.documentElement.dataset.rendered"


def render(folder: Path, settings: str) -> None:
    figures = Figures(10_000_000)
    times = []
    with stand_in(StandIn(figures, settings)) as address, browser(folder) as chromium:
        first = chromium.open(address)
        first.wait(RENDERED)
        first.run("localStorage.setItem('terrace.range', '86400')")
        for _ in range(PAGES):
            page = chromium.open(address)
            page.wait(RENDERED)
            times.append(float(page.run(RENDERED)) / 1000)
    params = {"hours": 24, "points": 360, "blocks": 10_000_000}
    emit("page.render", params, "s", times, "goal", [RENDER_GOAL_S])


def main() -> int:
    scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="b", dir=scratch()) as name:
        folder = Path(name)
        (port,) = free_ports(1)
        engine = WatchedEngine(folder, metrics__enabled=True, metrics__port=port)
        base = f"http://127.0.0.1:{port}/"

        def answers() -> bool:
            with contextlib.suppress(OSError), urlopen(f"{base}metrics", timeout=30):
                return True
            return False

        until(answers)
        for prompt in range(PROMPTS):
            engine.store(prompt)
            engine.settle()
        times = []
        for _ in range(SCRAPES):
            begun = time.perf_counter()
            with urlopen(f"{base}metrics", timeout=30) as answer:
                size = len(answer.read())
            times.append(time.perf_counter() - begun)
        emit("page.scrape", {"bytes": size}, "s", times, "goal", [SCRAPE_GOAL_S])
        with urlopen(f"{base}api/settings", timeout=30) as answer:
            settings = answer.read().decode()
        engine.close()
        render(folder / "browser", settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
