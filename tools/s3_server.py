"""SeaweedFS as an S3 store for tests and benches: free ports, a folder of its own, killed by pid.

It is stopped by SIGKILL alone: it takes half a minute to stop when it is asked.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from engine_env import installed

KEY, SECRET, BUCKET = "TESTKEY", "test-secret", "terrace-test"
PATIENCE_S = 120.0
PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "metricsPort",
)


def _first_given_port() -> int:
    """From here on the kernel gives ports to whoever connects: to the server's own parts, too."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, nor gets by connecting; all are held until the last is found."""
    ports: list[int] = []
    candidates = list(range(10_000, max(_first_given_port(), 12_000)))
    random.shuffle(candidates)
    with contextlib.ExitStack() as stack:
        for port in candidates:
            if len(ports) == count:
                return ports
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    raise OSError(f"there are no {count} free ports below {max(candidates)}")


def _signed(method: str, path: str, host: str, query: str = "") -> dict[str, str]:
    """Headers of a request without content, signed as S3 wants it."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{empty}"
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}"
    headers["authorization"] = f"{credential}, SignedHeaders={names}, Signature={signature}"
    return headers


class S3Server:
    """One server over one folder; start() and kill() as often as wanted, the ports stay."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self.folder = folder
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self._certificate = certificate  # Key, certificate.
        (folder / "data").mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "test",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def endpoint(self) -> str:
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://127.0.0.1:{self.ports['s3.port']}"

    def arguments(self) -> list[str]:
        """For the programs that take their server from the command line."""
        given = [self.endpoint, BUCKET, KEY, SECRET]
        return [*given, str(self._certificate[1])] if self._certificate else given

    def _command(self) -> list[str]:
        command = [str(installed()["services"] / "weed"), "server", f"-dir={self.folder / 'data'}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        command += [f"-s3.config={self.folder / 's3.json'}", "-s3.port.iceberg=0"]
        command += ["-s3.port.lance=0", "-master.telemetry=false"]
        command += [f"-filer.localSocket={self.folder / 'filer.sock'}"]
        command += [f"-s3.localSocket={self.folder / 's3.sock'}"]
        command += ["-volume.max=50", "-master.volumeSizeLimitMB=256"]
        command += [f"-{name}={port}" for name, port in self.ports.items()]
        if self._certificate:
            key, certificate = self._certificate
            command += [f"-s3.key.file={key}", f"-s3.cert.file={certificate}"]
        return command

    def start(self) -> None:
        """Returns once the bucket is there and takes objects."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        end = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                log_text = (self.folder / "server.log").read_text(errors="replace")
                raise RuntimeError(f"the S3 server did not come up:\n{log_text[-4000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            made, _ = self._ask("PUT", f"/{BUCKET}")
            return made in (200, 409) and self._ask("PUT", f"/{BUCKET}/ready")[0] == 200
        except OSError:
            return False

    def names(self) -> list[str]:
        """Of the first thousand objects in the bucket."""
        code, text = self._ask("GET", f"/{BUCKET}", "list-type=2")
        if code != 200:
            raise OSError(f"listing {BUCKET}: {code} {text[:200]}")
        return re.findall(r"<Key>([^<]*)</Key>", text)

    def _ask(self, method: str, path: str, query: str = "") -> tuple[int, str]:
        port = self.ports["s3.port"]
        connection: http.client.HTTPConnection
        if self._certificate:
            import ssl

            trust = ssl.create_default_context(cafile=str(self._certificate[1]))
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trust)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            try:
                headers = _signed(method, path, f"127.0.0.1:{port}", query)
                connection.request(method, f"{path}?{query}" if query else path, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode(errors="replace")
            except http.client.HTTPException as error:
                raise OSError(str(error)) from error

    def put_empty(self, name: str) -> None:
        """An object without content."""
        code, _ = self._ask("PUT", f"/{BUCKET}/{name}")
        if code != 200:
            raise RuntimeError(f"PUT {name}: {code}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of its own for 127.0.0.1."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RANDFILE": ""})
    return key, certificate


@contextlib.contextmanager
def s3_server(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[S3Server]:
    server = S3Server(folder, certificate)
    try:
        server.start()
        yield server
    finally:
        server.kill()
