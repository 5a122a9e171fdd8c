"""What `./dev demo --stack` sees of an engine: OpenAI's API, an owner's socket, and perhaps a page.

    python stack_stand_in.py PORT SOCKETS SETTINGS [WRONG]

`WRONG`: "dies" after its first answer, "counts nothing", "has no page".
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

PROMPT_TOKENS = 100
LEDGER = {"local_tokens": 32, "hit_tokens": {"host": 32}}
answered = 0
wrong = ""


class Handler(BaseHTTPRequestHandler):
    def _send(self, text: str, kind: str = "application/json") -> None:
        content = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path == "/status":
            self._send(json.dumps({"engine": "stand-in"}))
        elif self.path == "/metrics":
            count = 0 if wrong == "counts nothing" else PROMPT_TOKENS * answered
            text = (
                f"# TYPE terrace_prompt_tokens_total counter\nterrace_prompt_tokens_total {count}\n"
            )
            self._send(text, "text/plain; version=0.0.4")
        else:
            self._send("well")

    def do_POST(self) -> None:
        global answered
        self.rfile.read(int(self.headers["Content-Length"]))
        if answered and wrong == "dies":
            print("a bug of the stand-in", flush=True)
            os._exit(3)
        answered += 1
        own = {"terrace": {"ledger": LEDGER}}
        answer = {"usage": {"prompt_tokens": PROMPT_TOKENS}, "kv_transfer_params": own}
        self._send(json.dumps(answer))

    def address_string(self) -> str:
        return "somebody"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing for each request."""


class OwnersSocket(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "terrace", 0


def main() -> None:
    global wrong
    port, sockets, settings, *more = sys.argv[1:]
    wrong = more[0] if more else ""
    folder = Path(sockets)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{port:0>24}-admin.sock"
    path.unlink(missing_ok=True)
    servers: list[HTTPServer] = [OwnersSocket(str(path), Handler)]  # type: ignore[arg-type]
    chosen = json.loads(settings)
    if chosen.get("metrics.enabled") and wrong != "has no page":
        servers.append(ThreadingHTTPServer(("127.0.0.1", chosen["metrics.port"]), Handler))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
