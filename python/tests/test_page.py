"""The node's HTTP port and its page, in a real headless Chromium.

A real owner with some of everything behind it; for a day and ten million blocks, a stand-in.
TERRACE_SCREENSHOTS names a folder that pictures are kept in.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

from browser import Browser, Page, browser
from engine_env import scratch
from s3_server import free_ports
from tests.page_stand_in import Figures, StandIn, stand_in
from tests.test_real_library import until
from tests.watched_engine import WatchedEngine

PROMPTS = 30
RENDERED = "document.documentElement.dataset.rendered"
PICTURES = os.environ.get("TERRACE_SCREENSHOTS")
SHAPES = ("sources", "filling", "moved", "lookup-times", "onboard-times", "curve")


class Served:
    """A real owner, its port and its page."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.engine = WatchedEngine(folder, metrics__enabled=True, metrics__port=self.port)
        self.base = f"http://127.0.0.1:{self.port}/"
        self.wait_open()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.engine.owner.read_status())
        return found

    def wait_open(self) -> None:
        until(lambda: self.status()["page"] == self.base)

    def text(self, path: str) -> str:
        with urlopen(self.base + path, timeout=30) as answer:
            content: bytes = answer.read()
        return content.decode()

    def live(self) -> None:
        for prompt in range(PROMPTS):
            self.engine.store(prompt)
            self.engine.settle()
        for _ in range(2):
            for prompt in range(PROMPTS):
                self.engine.load(prompt)
        self.engine.load(PROMPTS + 100)  # Never stored.
        self.engine.settle()


def samples(text: str) -> dict[str, float]:
    rows = [row.rpartition(" ") for row in text.splitlines() if row and not row.startswith("#")]
    return {name: float(value) for name, _, value in rows}


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    scratch().mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="p", dir=scratch()) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def chromium(machine: Path) -> Iterator[Browser]:
    with browser(machine / "browser") as running:
        yield running


@pytest.fixture(autouse=True)
def _pages_end(chromium: Browser) -> Iterator[None]:
    """Else they would go on asking."""
    yield
    chromium.close_pages()


@pytest.fixture(scope="module")
def served(machine: Path) -> Iterator[Served]:
    folder = machine / "e"
    folder.mkdir()
    with ExitStack() as stack:
        node = Served(folder)
        stack.callback(node.engine.close)
        node.live()
        yield node


@pytest.fixture(scope="module")
def settings(served: Served) -> str:
    return served.text("api/settings")


def opened(chromium: Browser, address: str, **words: Any) -> Page:
    page = chromium.open(address, **words)
    page.wait(RENDERED)
    return page


def value_of(page: Page, selector: str) -> str:
    found = page.run(f"document.querySelector({selector!r})?.textContent ?? null")
    assert found is not None, selector
    return str(found)


def updated(page: Page) -> None:
    """Two updates from now on: the second one asked from now on, too."""
    count = page.run("Number(document.documentElement.dataset.updates)")
    page.wait(f"Number(document.documentElement.dataset.updates) >= {count + 2}")


def stays(values: dict[str, float]) -> dict[str, float]:
    """What only requests change: paths are looked at beside them, each look with its own time."""
    return {name: value for name, value in values.items() if "_disk_look_seconds" not in name}


def picture(page: Page, name: str) -> Image.Image:
    content = page.screenshot()
    if PICTURES:
        (Path(PICTURES) / f"{name}.png").write_bytes(content)
    return Image.open(io.BytesIO(content)).convert("RGB")


def is_dark(image: Image.Image) -> bool:
    red, green, blue = image.getpixel((3, image.height - 3))  # type: ignore[misc]
    return red + green + blue < 3 * 80


def assert_drawn(image: Image.Image) -> None:
    """Not one colour, nor a few: text and charts were drawn, from the top to the bottom."""
    assert image.width >= 1000
    assert image.height >= 1500
    bands = 6
    for band in range(bands):
        top = image.height * band // bands
        piece = image.crop((0, top, image.width, image.height * (band + 1) // bands))
        colours = piece.getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 30, f"band {band} of {bands} is nearly empty"
        ground = max(count for count, _ in colours)
        assert ground < 0.99 * piece.width * piece.height


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn_in_both_colour_schemes(
    scheme: str, chromium: Browser, served: Served
) -> None:
    page = opened(chromium, served.base, scheme=scheme)
    updated(page)
    image = picture(page, f"real-{scheme}")
    assert_drawn(image)
    assert is_dark(image) == (scheme == "dark")
    assert page.errors == []
    assert value_of(page, "#health") == "✓ health green"
    for shape in SHAPES:
        assert page.run(f"document.querySelectorAll('#{shape} svg > *').length") > 4, shape


def test_nobody_else_is_asked(chromium: Browser, served: Served) -> None:
    page = opened(chromium, served.base)
    updated(page)
    assert len(page.asked) > 8
    assert [address for address in page.asked if not address.startswith(served.base)] == []
    text = "".join(served.text(name) for name in ("", "page.js", "page.css", "icon.svg"))
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) == {"http://www.w3.org/2000/svg"}


def test_the_policy_of_the_page_holds(chromium: Browser, served: Served) -> None:
    page = opened(chromium, served.base)
    page.run("{const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
             "document.head.append(s); 0}")  # fmt: skip
    assert page.run("window.ran ?? 0") == 0
    assert any("Content Security Policy" in text for text in page.errors)


def test_values_are_those_of_metrics(chromium: Browser, served: Served) -> None:
    page = opened(chromium, served.base)
    updated(page)
    told = samples(served.text("metrics"))
    shown = page.run("Object.fromEntries([...document.querySelectorAll('[data-sample]')]"
                     ".map((one) => [one.dataset.sample, Number(one.dataset.value)]))")  # fmt: skip
    assert shown.keys() == told.keys()
    assert stays(shown) == stays(told)
    assert stays(samples(served.engine.owner.read_metrics())) == stays(told)

    def tile(name: str) -> float:
        return float(page.run(f"document.getElementById('tile-{name}').dataset.value"))

    hits = sum(told[f'terrace_hit_tokens_total{{tier="{t}"}}'] for t in ("host", "disk", "object"))
    assert tile("requests") == told["terrace_requests_total"] == 3 * PROMPTS + 1
    assert tile("tiers") == hits > 0
    asked, own = told["terrace_prompt_tokens_total"], told["terrace_engine_hit_tokens_total"]
    assert tile("spared") == pytest.approx((hits + own) / asked)
    missed = {name: n for name, n in told.items() if name.startswith("terrace_miss_blocks_total")}
    assert tile("misses") == sum(missed.values()) > 0
    bars = page.run("Object.fromEntries([...document.querySelectorAll('dd[data-reason]')]"
                    ".map((one) => [one.dataset.reason, Number(one.dataset.value)]))")  # fmt: skip
    wanted = {re.findall('"(.*)"', name)[0]: n for name, n in missed.items() if n > 0}
    assert bars == wanted
    for tier in ("host", "disk"):
        sealed = told[f'terrace_pool_slots{{tier="{tier}",state="sealed"}}']
        found = page.run(f"document.querySelector('[data-tier={tier}]').dataset.sealed")
        assert float(found) == sealed > 0


def test_slowest_requests_and_settings_are_shown(chromium: Browser, served: Served) -> None:
    page = opened(chromium, served.base)
    rows = page.run("document.querySelectorAll('#slowest tbody tr').length")
    ledger = json.loads(served.text("api/ledger"))
    assert rows == len(ledger["requests"]) == 20
    first = page.run("document.querySelector('#slowest tbody th').textContent")
    assert first == ledger["requests"][0]["request"] or first.startswith("number ")
    times = [one["seconds"] for one in ledger["requests"]]
    assert times == sorted(times, reverse=True)
    assert "host.size" in value_of(page, "#settings")
    assert "1MiB" in value_of(page, "#settings")
    assert "worker.threads" not in value_of(page, "#settings")
    box = "document.getElementById('settings-filter')"
    page.run(f"{box}.value = 'worker.threads'; {box}.dispatchEvent(new Event('input'))")
    assert "Copying threads per rank" in value_of(page, "#settings")
    assert value_of(page, "#settings-count").startswith("1 of ")


def test_a_secret_is_not_shown(machine: Path) -> None:
    folder = machine / "k"
    folder.mkdir()
    (port,) = free_ports(1)
    engine = WatchedEngine(
        folder, metrics__enabled=True, metrics__port=port, object__secret_key="not for you"
    )
    try:
        until(lambda: json.loads(engine.owner.read_status())["page"] != "")
        with urlopen(f"http://127.0.0.1:{port}/api/settings", timeout=30) as answer:
            text = answer.read().decode()
        assert "<hidden>" in text
        assert "not for you" not in text
    finally:
        engine.close()


def test_a_mode_and_a_problem_are_told(chromium: Browser, served: Served) -> None:
    page = opened(chromium, served.base)
    assert page.run("document.getElementById('notices').children.length") == 0
    served.engine.ask("PUT", "/mode", {"mode": "paused"})
    try:
        page.wait("document.getElementById('notices').textContent.includes('Paused')")
        page.wait("document.getElementById('facts').textContent.includes('paused')")
    finally:
        served.engine.ask("PUT", "/mode", {"mode": "on"})
    page.wait("document.getElementById('notices').children.length === 0")


def test_the_page_is_used_by_keys_alone(chromium: Browser, served: Served) -> None:
    page = opened(chromium, served.base)
    seen = []
    for _ in range(40):
        page.key("Tab")
        seen.append(
            page.run(
                "document.activeElement.id || document.activeElement.name ||"
                "document.activeElement.parentElement.id || document.activeElement.className"
            )
        )
    assert seen[0] == "skip"
    for wanted in ("range", "theme", "settings-filter", "metrics-filter", "sources", "curve"):
        assert wanted in seen, seen
    page.run("document.querySelector('#sources svg').focus()")
    page.key("End")
    assert "computed" in value_of(page, "#sources .tip")
    assert page.run("document.querySelector('#sources .tip').hidden") is False
    before = value_of(page, "#sources .tip strong")
    assert before in value_of(page, "#sources [aria-live]")
    page.key("Escape")
    assert page.run("document.querySelector('#sources .tip').hidden") is True
    page.run("document.querySelector('input[name=range]:checked').focus()")
    page.key("ArrowRight")
    page.wait("document.querySelector('input[name=range]:checked').value === '21600'")
    page.key("ArrowLeft")
    page.wait("document.querySelector('input[name=range]:checked').value === '3600'")
    page.run("{const theme = document.getElementById('theme'); theme.value = 'dark';"
             "theme.dispatchEvent(new Event('change')); 0}")  # fmt: skip
    assert page.run("getComputedStyle(document.body).colorScheme") == "dark"
    page.run("localStorage.clear()")
    assert page.errors == []


def test_an_owner_without_a_block_has_its_words(machine: Path, chromium: Browser) -> None:
    folder = machine / "0"
    folder.mkdir()
    node = Served(folder)
    try:
        page = opened(chromium, node.base)
        page.wait("document.getElementById('sources').textContent.includes('No prompt has ended')")
        assert_drawn(picture(page, "empty"))
        assert page.errors == []
        assert "No request has ended" in value_of(page, "#slowest")
        assert "No block was missed" in value_of(page, "#misses")
        assert "asked for twice" in value_of(page, "#curve")
        assert "No look-up has ended" in value_of(page, "#lookup-times")
        # None but the canary's, if it has come so far.
        sealed = page.run("document.querySelector('[data-tier=disk]').dataset.sealed")
        assert sealed in ("0", "1")
        assert value_of(page, "#tile-spared .value") == "–"
    finally:
        node.engine.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_day_and_ten_million_blocks(scheme: str, chromium: Browser, settings: str) -> None:
    with stand_in(StandIn(Figures(10_000_000), settings)) as address:
        page = opened(chromium, address, scheme=scheme)
        page.run("document.querySelector('input[value=\"86400\"]').click()")
        page.wait("document.getElementById('tile-requests').textContent.includes('24 h')")
        assert_drawn(picture(page, f"day-{scheme}"))
        assert page.errors == []
        assert "of 20 TB" in value_of(page, "[data-tier=disk]")
        assert "9.3 M sealed" in value_of(page, "[data-tier=disk]")
        for shape in SHAPES:
            assert page.run(f"document.querySelectorAll('#{shape} svg > *').length") > 4, shape
        page.resize(420, 900)
        wide = page.run(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, "a narrow window scrolls sideways"
        rows = "[...document.querySelectorAll('#settings tbody tr, #metrics tbody tr')]"
        page.run("{const all = document.getElementById('settings-changed'); all.checked = false;"
                 "all.dispatchEvent(new Event('input')); 0}")  # fmt: skip
        tallest = page.run(f"Math.max(...{rows}.map((row) => row.offsetHeight))")
        assert tallest < 250, "a column of words has a word a line, and the others are empty"
        picture(page, f"narrow-{scheme}")


def shape_of(value: Any) -> Any:
    """Names and kinds; of a list, of its first element."""
    if isinstance(value, dict):
        return {name: shape_of(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_the_stand_in_tells_what_an_owner_tells(served: Served, settings: str) -> None:
    node = StandIn(Figures(1000), settings)

    def both(path: str) -> tuple[Any, Any]:
        found = node.answer(f"/{path}")
        assert found is not None
        return shape_of(json.loads(found[1])), shape_of(json.loads(served.text(path)))

    invented, real = both("api/history?seconds=3600")
    # Of what this owner has not, its columns hold nothing.
    assert set(invented.pop("columns")) == set(real.pop("columns"))
    assert invented == real
    invented, real = both("api/ledger")
    assert set(invented) == set(real)
    assert set(invented["requests"][0]) == set(real["requests"][0])
    for one in json.loads(served.text("api/ledger"))["requests"]:
        if one["plan"] is not None:  # Else nothing was found, and nothing planned.
            assert invented["requests"][0]["plan"] == shape_of(one["plan"])
    invented, real = both("api/status")
    assert set(invented) <= set(real)
    for name in ("forecast", "tiers", "queues", "attachments"):
        first = invented[name][0] if isinstance(invented[name], list) else invented[name]
        other = real[name][0] if isinstance(real[name], list) else real[name]
        assert set(first) == set(other), name
    assert set(invented["miss_blocks"]) == set(real["miss_blocks"])
    assert set(samples(node.figures.metrics())) <= set(samples(served.text("metrics")))


def test_problems_stand_at_the_top(chromium: Browser, settings: str) -> None:
    node = StandIn(Figures(1000), settings)
    node.changes = {"health": "red", "problems": ["disk.paths: <b>/kv</b> is full: make room"]}
    with stand_in(node) as address:
        page = opened(chromium, address)
        assert value_of(page, "#health") == "✗ health red"
        assert "<b>/kv</b> is full" in value_of(page, "#notices")
        assert page.run("document.querySelector('#notices b')") is None
        picture(page, "red")


def test_a_port_that_stops_answering_is_told(chromium: Browser, settings: str) -> None:
    node = StandIn(Figures(1000), settings)
    with stand_in(node) as address:
        page = opened(chromium, address)
        node.is_well = False
        page.wait("document.getElementById('health').textContent === 'no answer'")
        assert "old" in value_of(page, "#facts")
        node.is_well = True
        page.wait("document.getElementById('health').textContent === '✓ health green'")


def test_a_port_in_use_is_a_problem_of_the_status_until_it_is_free(
    served: Served, machine: Path
) -> None:
    folder = machine / "2"
    folder.mkdir()
    second = WatchedEngine(folder, metrics__enabled=True, metrics__port=served.port)
    try:

        def problems() -> list[str]:
            found: list[str] = json.loads(second.owner.read_status())["problems"]
            return found

        until(lambda: bool(problems()))
        assert "EADDRINUSE" in problems()[0]
        status = json.loads(second.owner.read_status())
        assert (status["health"], status["page"]) == ("red", "")
        second.store(1)  # The engine goes on.
        second.settle()
        assert second.load(1)["hit_tokens"] != {}
    finally:
        second.close()


def test_the_port_only_tells(served: Served) -> None:
    def code(method: str, path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    refused: list[Callable[[], int]] = [
        lambda: code("PUT", "/mode"),
        lambda: code("POST", "/api/status"),
        lambda: code("DELETE", "/"),
    ]
    assert [ask() for ask in refused] == [405, 405, 405]
    assert code("GET", "/mode") == 404
    assert code("GET", "/metrics", Host="rebound.example") == 421
    assert code("HEAD", "/metrics") == 200
    assert served.status()["mode"] == "on"
