"""The object store `s3` against a real server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_env import ROOT
from s3_server import S3Server, make_certificate, s3_server

PROGRAMS = ROOT / "build" / "release" / "tests"
LIMIT_S = 300
LEAST = 30  # Tests of the contract, with and without signed payloads.


@pytest.fixture(scope="module", params=["http", "https"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    certificate = make_certificate(folder) if request.param == "https" else None
    with s3_server(folder, certificate) as made:
        yield made


def test_the_contract_of_object_stores_holds(server: S3Server) -> None:
    command = [str(PROGRAMS / "s3_contract_test"), "--gtest_brief=1", *server.arguments()]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S
    )
    assert result.returncode == 0, result.stdout
    passed = re.search(r"\[  PASSED  \] (\d+) tests\.", result.stdout)
    assert passed is not None, result.stdout
    assert int(passed[1]) >= LEAST, result.stdout


def test_a_server_that_is_killed_under_load_comes_back(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        command = [str(PROGRAMS / "s3_outage_test"), "--gtest_brief=1", *server.arguments()]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seen = []
        try:
            assert process.stdout is not None
            for line in process.stdout:  # Ends: the program bounds each of its parts.
                seen.append(line)
                if line == "under load\n":
                    server.kill()
                if line == "away\n":
                    server.start()
            assert process.wait(LIMIT_S) == 0, "".join(seen)
        finally:
            process.kill()
            process.wait()
        assert {"under load\n", "away\n"} <= set(seen), "".join(seen)
