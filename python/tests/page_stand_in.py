"""A node that tells what a test wants: the page's own files over invented figures.

For what no test can make in a moment: a day of history, ten million blocks, or a port that stops
answering. A test compares the shape of its figures with a real owner's.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from engine_env import ROOT

FILES = ROOT / "terrace" / "serve" / "http" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
TYPES |= {".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DAY_S = 86_400
POINTS = 360  # What a node answers at most.
BLOCK = 2_000_000  # Bytes.
BOUNDS = "0.0001 0.0002 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10 +Inf".split()
REASONS = {"never_stored": 9.0, "evicted": 4.0, "not_worth_it": 1.5, "late": 0.2, "dropped": 0.1}
NONE = ("other_namespace", "corrupt", "unkeyable", "paused", "shadow", "quarantined")


class Figures:
    """A day in an engine's life with so many blocks on disk, a tenth of them in host."""

    def __init__(self, disk_blocks: int) -> None:
        self.disk, self.host = disk_blocks, disk_blocks // 10
        self._tokens = [1e9]  # Of the load, by the minute.
        for minute in range(DAY_S // 60):
            self._tokens.append(self._tokens[-1] + 60 * self.load(60 * minute))

    def load(self, at: float) -> float:
        """Prompt tokens a second: a quiet night, a busy day, some noise."""
        day = 0.55 - 0.45 * math.cos(2 * math.pi * at / DAY_S)
        return 42_000 * day * (1 + 0.12 * math.sin(at / 311) + 0.08 * math.sin(at / 97))

    def grown(self, share: float, ages: list[float]) -> list[float | None]:
        """A counter at these ages that takes a share of the load."""
        values: list[float | None] = []
        for age in ages:
            minute, rest = divmod(DAY_S - age, 60)
            tokens = self._tokens[int(minute)] + rest * self.load(60 * minute)
            values.append(round(tokens * share))
        return values

    def columns(self, ages: list[float]) -> dict[str, list[float | None]]:
        def filled(most: int, hours: float) -> list[float | None]:
            return [round(most * (1 - math.exp(-(DAY_S - age) / hours / 3600))) for age in ages]

        moved = "terrace_transfer_bytes_total"
        made: dict[str, list[float | None]] = {
            "terrace_requests_total": self.grown(1 / 3000, ages),
            "terrace_prompt_tokens_total": self.grown(1, ages),
            "terrace_engine_hit_tokens_total": self.grown(0.22, ages),
            'terrace_hit_tokens_total{tier="host"}': self.grown(0.19, ages),
            'terrace_hit_tokens_total{tier="disk"}': self.grown(0.24, ages),
            'terrace_hit_tokens_total{tier="object"}': self.grown(0.05, ages),
            "terrace_failed_tokens_total": [0 for _ in ages],
            'terrace_pool_slots{tier="host",state="sealed"}': filled(self.host, 1),
            'terrace_pool_slots{tier="host",state="pinned"}': [self.host // 50 for _ in ages],
            'terrace_pool_slots{tier="disk",state="sealed"}': filled(self.disk, 9),
            "terrace_object_store_bytes": [round(2e13 + age) for age in reversed(ages)],
            f'{moved}{{op="onboard",source="host",target="device"}}': self.grown(60_000, ages),
            f'{moved}{{op="offload",source="device",target="host"}}': self.grown(64_000, ages),
            f'{moved}{{op="offload",source="host",target="disk"}}': self.grown(33_000, ages),
            f'{moved}{{op="offload",source="host",target="object"}}': self.grown(12_000, ages),
            f'{moved}{{op="prefetch",source="disk",target="host"}}': self.grown(30_000, ages),
            f'{moved}{{op="prefetch",source="object",target="host"}}': self.grown(6_000, ages),
            'terrace_loads_total{result="loaded"}': self.grown(1 / 6000, ages),
            'terrace_loads_total{result="failed"}': [3 for _ in ages],
            "terrace_active_requests": [round(self.load(DAY_S - age) / 2000) for age in ages],
        }
        for name in ("lookup", "onboard"):
            made[f"terrace_{name}_seconds_count"] = self.grown(1 / 3000, ages)
            made[f"terrace_{name}_seconds_sum"] = self.grown(1 / 90_000, ages)
        for reason, share in REASONS.items():
            name = f'terrace_miss_blocks_total{{reason="{reason}"}}'
            made[name] = self.grown(share / 1600, ages)
        for reason in NONE:
            made[f'terrace_miss_blocks_total{{reason="{reason}"}}'] = [0 for _ in ages]
        return {name: list(values) for name, values in made.items()}

    def buckets(self, name: str, centre: float, count: float) -> dict[str, float]:
        """Times scattered about a centre, as counters that add up."""
        found: dict[str, float] = {}
        for bound in BOUNDS:
            place = math.log(float(bound.replace("+Inf", "inf")) / centre)
            share = 0.5 * (1 + math.erf(place / 1.5))
            found[f'{name}_bucket{{le="{bound}"}}'] = round(count * share)
        return found

    def history(self, span: int) -> dict[str, Any]:
        step = max(5.0, span / POINTS)
        ages = [span - step * i for i in range(int(span / step))]
        first = self.buckets("terrace_lookup_seconds", 0.004, 1e6)
        first |= self.buckets("terrace_onboard_seconds", 0.05, 1e6)
        now = int(time.time())
        return {
            "now": now,
            "step_seconds": step,
            "ages": ages,
            "columns": self.columns(ages),
            "first": first,
        }

    def metrics(self) -> str:
        samples: dict[str, Any] = {name: row[0] for name, row in self.columns([0.0]).items()}
        samples |= self.buckets("terrace_lookup_seconds", 0.004, 2e6)
        samples |= self.buckets("terrace_onboard_seconds", 0.05, 2e6)
        return "".join(f"{name} {value}\n" for name, value in samples.items())

    def tier(self, name: str, blocks: int, detail: str) -> dict[str, Any]:
        slots = {"reserved": 0, "filling": 12, "evicting": 0, "quarantined": 0}
        slots |= {"sealed": int(blocks * 0.93), "pinned": blocks // 50}
        slots["free"] = blocks - slots["sealed"] - 12
        size = blocks * BLOCK
        words = {"tier": name, "state": "open", "detail": detail, "capacity_bytes": size}
        return {**words, "slots": slots}

    def status(self) -> dict[str, Any]:
        def held(size: float) -> float:
            return 71 * (1 - math.exp(-((size / (self.disk * BLOCK)) ** 0.5) * 2.2))

        sizes = [2 ** (i / 4) * 64 * BLOCK for i in range(96)]
        queue = {"waiting": 7, "capacity": 4096, "dropped": 0}
        hits = self.columns([0.0])
        return {
            "engine": "vllm-0f3c91d2 (ten million blocks)",
            "page": "http://127.0.0.1:6880/",
            "process": 4711,
            "health": "green",
            "problems": [],
            "poisoned": False,
            "mode": "on",
            "ready": True,
            "canary": "passed",
            "uptime_seconds": 3.2 * DAY_S,
            "tiers": [
                self.tier("host", self.host, f"{self.host} of {self.host} slots populated"),
                self.tier("disk", self.disk, "io_uring, O_DIRECT"),
                {**self.tier("object", 0, "s3://kv, packs of 16 blocks"), "capacity_bytes": 0},
            ],
            "queues": [{"name": name, **queue} for name in ("disk_read", "disk_write", "steps")],
            "attachments": [
                {"rank": i, "epoch": 3, "process": 4720 + i, "attached": True, "detail": ""}
                for i in range(4)
            ],
            "forecast": {
                "blocks_asked": 900_000,
                "window_seconds": 40_000.0,
                "prompt_tokens": 14_400_000,
                "engine_tokens": 2_000_000,
                "longest_usual_blocks": 4095,
                "least_host_bytes": 8190 * BLOCK,
                "disk_has_copies": True,
                "sizes": [],
                "block_bytes": BLOCK,
                "block_tokens": 16,
                "curve": [{"bytes": size, "hit_percent": held(size)} for size in sizes],
            },
            "active_requests": 31,
            "corrupt_blocks": {"device": 0, "host": 0, "disk": 0, "object": 0, "peer": 0},
            "miss_blocks": dict.fromkeys((*REASONS, *NONE), 0),
            "hit_tokens": {"host": hits['terrace_hit_tokens_total{tier="host"}'][0]},
        }

    def ledger(self) -> dict[str, Any]:
        def request(i: int) -> dict[str, Any]:
            load, rest = 1.9 / (1 + i / 4), 0.4 / (1 + i / 9)
            return {
                "request": f"chatcmpl-{900_000 - 37 * i:x}",
                "number": 900_000 - 37 * i,
                "age_seconds": 41.0 * (i + 1),
                "seconds": load + rest + 0.012,
                "prompt_tokens": 61_000 - 2300 * i,
                "local_tokens": 512 * (i % 5),
                "hit_tokens": {"disk": 22_000 - 900 * i, "host": 4096},
                "failed_tokens": 0,
                "pending_tokens": 0,
                "unkeyable": None,
                "first_miss": "evicted" if i % 3 else "never_stored",
                "lookup_seconds": 0.012,
                "plan": {
                    "found_tokens": 26_000,
                    "planned_tokens": 26_000,
                    "slowest": "disk",
                    "predicted_load_seconds": load * 0.8,
                    "load_seconds": load,
                    "predicted_recompute_seconds": 3.0,
                    "recompute_seconds": rest,
                    "recomputed_tokens": 9000,
                    "abandoned": i == 2,
                },
            }

        requests = [request(i) for i in range(20)]
        return {"window_seconds": 3600.0, "left_out": 0, "requests": requests}


class StandIn:
    """Answers as long as `is_well`, else closes."""

    def __init__(self, figures: Figures, settings: str) -> None:
        self.figures, self.settings = figures, settings
        self.changes: dict[str, Any] = {}  # Of the status.
        self.is_well = True

    def answer(self, path: str) -> tuple[str, bytes] | None:
        place, _, query = path.partition("?")
        if place == "/metrics":
            return "text/plain; version=0.0.4", self.figures.metrics().encode()
        if place == "/api/settings":
            return "application/json", self.settings.encode()
        made: Any = None
        if place == "/api/status":
            made = self.figures.status() | self.changes
        elif place == "/api/history":
            made = self.figures.history(int(query.removeprefix("seconds=")))
        elif place == "/api/ledger":
            made = self.figures.ledger()
        if made is not None:
            return "application/json", json.dumps(made).encode()
        file = FILES / ("index.html" if place == "/" else place[1:])
        if file.parent != FILES or not file.exists():
            return None
        return TYPES[file.suffix], file.read_bytes()


@contextmanager
def stand_in(node: StandIn) -> Iterator[str]:
    """Its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = node.answer(self.path) if node.is_well else None
            if not node.is_well:
                self.close_connection = True
                return
            self.send_response(200 if found else 404)
            kind, content = found or ("text/plain", b"")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
