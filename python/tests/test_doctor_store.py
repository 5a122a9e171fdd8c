"""The doctor looks at the store that engines share: directory, libcurl, credentials, endpoint."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dev import build
from terrace import doctor, doctor_store
from terrace.finding import Asked, Finding


def looked_at(**settings: str) -> list[Finding]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return list(doctor_store.shared_store(Asked(settings=named)))


def test_without_a_store_there_is_nothing_to_say() -> None:
    assert looked_at() == []
    assert list(doctor_store.shared_store(Asked())) == []


def test_it_is_among_the_checks() -> None:
    assert ("object", doctor_store.shared_store) in doctor.CHECKS


# ---- A directory --------------------------------------------------------------------------------


def test_a_directory_of_nodes_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(doctor_store, "file_system", lambda _path: "nfs4")
    (found,) = looked_at(object__path=str(tmp_path))
    assert found.state == "ok"
    assert "empty, as it has to be at first" in found.text
    (tmp_path / doctor_store.MARKER).touch()
    (tmp_path / "v1").mkdir()
    (found,) = looked_at(object__path=str(tmp_path))
    assert "in use" in found.text


@pytest.mark.parametrize(
    ("kind", "state", "words"),
    [
        ("ext4", "note", "only engines of this machine"),
        ("tmpfs", "warn", "is lost at a reboot"),
        ("overlay", "warn", "is lost with the container"),
        ("", "note", "an unknown file system"),
    ],
)
def test_a_file_system_that_nobody_shares_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, state: str, words: str
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(doctor_store, "file_system", lambda _path: kind)
    found = looked_at(object__path=str(tmp_path))
    assert [one.state for one in found] == ["ok", state]
    assert words in found[1].text
    assert found[1].way_out


def test_a_directory_that_is_none_fails(tmp_path: Path) -> None:
    (missing,) = looked_at(object__path=str(tmp_path / "nothing"))
    assert (missing.state, missing.way_out) == ("fail", "mount it, or make that folder")
    file = tmp_path / "file"
    file.touch()
    (found,) = looked_at(object__path=str(file))
    assert found.state == "fail"
    assert "no folder" in found.text


def test_a_directory_with_other_things_in_it_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for name in ("lost+found", "=new-host-1-0123456789abcdef"):
        (tmp_path / name).mkdir()
    assert looked_at(object__path=str(tmp_path))[0].state == "ok"
    (tmp_path / "photos").mkdir()
    (found,) = looked_at(object__path=str(tmp_path))
    assert found.state == "fail"
    assert doctor_store.MARKER in found.text


@pytest.mark.parametrize(
    ("mode", "group", "words"),
    [
        (0o777, "false", "everybody may write"),
        (0o770, "false", "its group may write"),
        (0o770, "true", ""),
        (0o777, "true", "everybody may write"),
        (0o700, "false", ""),
    ],
)
def test_who_else_may_write_there_is_told(
    tmp_path: Path, mode: int, group: str, words: str
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(mode)
    found = looked_at(object__path=str(folder), object__shared_group=group)
    told = [one for one in found if "may write" in one.text]
    assert len(told) == bool(words)
    assert all(words in one.text and "chmod" in one.way_out for one in told)


# ---- A bucket -----------------------------------------------------------------------------------

KEYS = {"object__access_key": "AK", "object__secret_key": "<hidden>"}


@pytest.fixture
def store() -> Iterator[tuple[str, list[str], list[int]]]:
    """Address of a server, what it was asked for, and what it answers."""
    asked: list[str] = []
    codes = [403]

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Nobody reads it."""

        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(codes[0])
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked, codes
    server.shutdown()
    thread.join()
    server.server_close()


def bucket(endpoint: str, **settings: str) -> list[Finding]:
    return looked_at(
        object__enabled="true", object__endpoint=endpoint, object__bucket="blocks", **settings
    )


def test_a_store_that_refuses_strangers_answers(store: tuple[str, list[str], list[int]]) -> None:
    found = bucket(store[0], **KEYS)
    assert [one.state for one in found] == ["ok", "ok"]
    assert "libcurl" in found[0].text
    assert "403" in found[1].text
    assert store[1] == ["/blocks"]


def test_a_bucket_that_is_not_there_is_told(store: tuple[str, list[str], list[int]]) -> None:
    store[2][0] = 404
    found = bucket(store[0], **KEYS)[-1]
    assert found.state == "warn"
    assert "no bucket 'blocks'" in found.text


def test_a_store_that_is_not_there_fails() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound, and nobody listens.
        found = bucket(f"http://127.0.0.1:{taken.getsockname()[1]}", **KEYS)[-1]
    assert found.state == "fail"
    assert "refused" in found.text.lower()
    assert found.way_out


def test_an_address_that_is_none_fails(store: tuple[str, list[str], list[int]]) -> None:
    assert bucket("http://nowhere.invalid:1", **KEYS)[-1].state == "fail"
    found = bucket(store[0].replace("http:", "https:"), **KEYS)[-1]  # Speaks no TLS.
    assert found.state == "fail"
    wrong = bucket("http://127.0.0.1:port", **KEYS)[-1]
    assert wrong.state == "fail"


def test_a_missing_libcurl_is_explained() -> None:
    found = doctor_store._curl(False, "libnowhere.so.4")
    assert found.state == "fail"
    assert "libnowhere.so.4" in found.text
    assert "apt-get install libcurl4" in found.way_out


def test_a_library_that_is_no_libcurl_is_explained() -> None:
    found = doctor_store._curl(False, "libc.so.6")
    assert found.state == "fail"
    assert "curl_version_info" in found.text


def test_an_old_libcurl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_store, "OLDEST_CURL", 0xFFFFFF)
    assert "too old" in doctor_store._curl(False).text
    monkeypatch.setattr(doctor_store, "OLDEST_CURL", 0)
    monkeypatch.setattr(doctor_store, "CURL_HAS_TLS", 0)
    assert "no TLS" in doctor_store._curl(True).text
    assert doctor_store._curl(False).state == "ok"


@pytest.mark.parametrize(
    ("text", "profile", "state", "words"),
    [
        ("[default]\naws_access_key_id = A\naws_secret_access_key = B\n", "default", "ok", "keys"),
        ("[default]\naws_access_key_id = A\n", "default", "fail", "no aws_secret_access_key"),
        ("[default]\naws_secret_access_key = B\n", "default", "fail", "no aws_access_key_id"),
        ("[default]\n", "other", "fail", "profile [other]"),
        ("aws_access_key_id = A\n", "default", "fail", "no section"),
    ],
)
def test_a_credentials_file_is_read_as_the_store_reads_it(
    tmp_path: Path, text: str, profile: str, state: str, words: str
) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    file.chmod(0o600)
    settings: dict[str, object] = {
        "object.credentials_file": str(file),
        "object.profile": profile,
    }
    (found,) = doctor_store._credentials(settings)
    assert found.state == state
    assert words in found.text
    file.chmod(0o644)
    shown = list(doctor_store._credentials(settings))
    assert any("chmod 600" in one.way_out for one in shown) == (state == "ok")


def test_a_credentials_file_that_is_not_there_fails(tmp_path: Path) -> None:
    (found,) = doctor_store._credentials({"object.credentials_file": str(tmp_path / "none")})
    assert found.state == "fail"
    (found,) = doctor_store._credentials({"object.access_key": "AK", "object.secret_key": ""})
    assert "object.secret_key" in found.text


def test_no_secret_is_ever_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    store: tuple[str, list[str], list[int]],
) -> None:
    monkeypatch.setenv("TERRACE_PROGRAM", str(build.folder("release") / "bin" / "terrace"))
    variables = {
        "HOST_SIZE": "1GiB",
        "OBJECT_ENABLED": "true",
        "OBJECT_BUCKET": "blocks",
        "OBJECT_ENDPOINT": store[0],
        "OBJECT_ACCESS_KEY": "AK",
        "OBJECT_SECRET_KEY": "hush-hush",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"TERRACE_{name}", value)
    wanted = [one for one in doctor.CHECKS if one[0] in ("settings", "object")]
    monkeypatch.setattr(doctor, "CHECKS", wanted)
    assert doctor.main() == 0
    shown = capsys.readouterr().out
    assert "answers for bucket 'blocks'" in shown
    assert "hush" not in shown
