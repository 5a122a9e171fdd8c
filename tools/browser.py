"""Debian's headless Chromium for tests, driven over a pipe by its DevTools protocol: no port.

Its profile lies in a folder of its own; it is ended by pid.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.server import end_left_behind
from engine_env import installed

PATIENCE_S = 60.0
PAUSE_S = 0.05
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
"""
# Nothing that asks the net, and no sandbox: tests may run as root in a container.
FLAGS = [
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
]


class BrowserError(Exception):
    """The browser refused a command, has ended, or does not answer."""


class Browser:
    """One browser; `open()` gives its pages."""

    def __init__(self, folder: Path) -> None:
        unpacked = installed()["chromium"]
        root = unpacked / "usr"
        # Some of Debian's libraries lie in /lib, not in /usr/lib.
        libraries = [top / "lib" / "x86_64-linux-gnu" for top in (root, unpacked)]
        libraries.append(libraries[0] / "pulseaudio")
        fonts = folder / "fonts.conf"
        fonts.write_text(FONTS.format(fonts=root / "share" / "fonts", cache=folder / "fonts"))
        program = root / "lib" / "chromium" / "chromium-headless-shell"
        environment = os.environ | {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "FONTCONFIG_FILE": str(fonts),
            "HOME": str(folder),
        }
        asked, self._asking = os.pipe()
        self._told, telling = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4. Not by `sh`, which knows no
        # descriptors of two figures.
        words = ["bash", "-c", f'exec "$@" 3<&{asked} 4>&{telling}', "bash", str(program), *FLAGS]
        words.append(f"--user-data-dir={folder / 'profile'}")
        self._log = folder / "chromium.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=(asked, telling),
            )
        os.close(asked)
        os.close(telling)
        self._rest = b""
        self._number = 0
        self._pages: dict[str, Page] = {}
        self._targets: list[str] = []

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._told], [], [], max(0, deadline - time.monotonic()))
            piece = os.read(self._told, 1 << 20) if ready else b""
            if not piece:
                raise BrowserError("Chromium has ended" if ready else "Chromium does not answer")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content

    def call(self, method: str, session: str = "", **words: Any) -> dict[str, Any]:
        """What a command of the protocol gives; events meanwhile go to their pages."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": words}
        if session:
            command["sessionId"] = session
        left = json.dumps(command).encode() + b"\0"
        while left:
            left = left[os.write(self._asking, left) :]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            message = self._receive(deadline)
            if message.get("id") != self._number:
                if page := self._pages.get(message.get("sessionId", "")):
                    page.note(message.get("method", ""), message.get("params", {}))
                continue
            if "error" in message:
                raise BrowserError(f"{method}: {message['error']['message']}")
            result: dict[str, Any] = message["result"]
            return result

    def open(self, address: str, *, scheme: str = "light", width: int = 1280) -> Page:
        """A page whose user prefers the colour scheme `light` or `dark`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._targets.append(target)
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, attached["sessionId"])
        self._pages[attached["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.call("Emulation.setEmulatedMedia", features=[feature])
        page.resize(width, 1000)
        page.call("Page.navigate", url=address)
        return page

    def close_pages(self) -> None:
        for target in self._targets:
            self.call("Target.closeTarget", targetId=target)
        self._targets.clear()
        self._pages.clear()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        end_left_behind(self._log)  # Its helpers, which would go on writing to the profile.
        os.close(self._asking)
        os.close(self._told)


class Page:
    """One tab. `errors`: what its console holds against it; `asked`: all addresses it asked."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.errors: list[str] = []
        self.asked: list[str] = []

    def note(self, method: str, words: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = words["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and words["type"] in ("error", "warning"):
            self.errors.append(str([one.get("value") for one in words["args"]]))
        elif method == "Log.entryAdded" and words["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{words['entry']['text']} {words['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.asked.append(words["request"]["url"])

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **words)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        words = {"expression": script, "returnByValue": True, "awaitPromise": True}
        got = self.call("Runtime.evaluate", **words)
        if "exceptionDetails" in got:
            raise BrowserError(f"{script}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true; what it throws is "not yet"."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(f"(() => {{ try {{ return Boolean({condition}); }} catch {{ }} }})()"):
            if time.monotonic() > deadline:
                raise BrowserError(
                    f"after {PATIENCE_S:.0f} s still not: {condition}; {self.errors}"
                )
            time.sleep(PAUSE_S)

    def key(self, name: str, *, shift: bool = False) -> None:
        """Presses a key that writes no letter: Tab, ArrowLeft, Escape."""
        codes = {"Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        words = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, modifiers=8 * shift, **words)

    def resize(self, width: int, height: int) -> None:
        words = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **words)

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        words = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(self.call("Page.captureScreenshot", **words)["data"])


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    folder.mkdir(parents=True, exist_ok=True)
    running = Browser(folder)
    try:
        yield running
    finally:
        running.close()
