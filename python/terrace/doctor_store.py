"""What `terrace doctor` says of the store that engines share: a directory, or an S3 bucket."""

from __future__ import annotations

import configparser
import ctypes
import http.client
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from terrace.finding import Asked, Finding, fail, file_system, note, ok, warn

CURL = "libcurl.so.4"
OLDEST_CURL = 0x074400  # 7.68.0, as terrace/transfer/backends/s3 wants it.
CURL_HAS_TLS = 1 << 2  # CURL_VERSION_SSL
INSTALL_CURL = (
    "install libcurl 7.68 or newer with TLS (Debian and Ubuntu: apt-get install libcurl4, "
    "Fedora and RHEL: libcurl); engines go on without the bucket until then"
)
MARKER = "TERRACE-OBJECTS"
_NOBODYS = ("lost+found", ".snapshot")  # What file systems make themselves.
ANSWER_LIMIT_S = 5.0
# What nodes share; what is not here is one machine's own, as far as its name tells.
_SHARED = (
    "nfs",
    "lustre",
    "ceph",
    "fuse",
    "wekafs",
    "beegfs",
    "gpfs",
    "glusterfs",
    "9p",
    "virtiofs",
)
_SHORT_LIVED = {"tmpfs": "is lost at a reboot", "overlay": "is lost with the container"}


def shared_store(asked: Asked) -> Iterator[Finding]:
    given = asked.settings or {}
    if path := str(given.get("object.path", "")):
        yield from _directory(Path(path), given.get("object.shared_group") == "true")
    if given.get("object.enabled") == "true":
        endpoint = str(given.get("object.endpoint", ""))
        yield _curl(endpoint.startswith("https:"))
        yield from _credentials(given)
        yield from _answer(given, endpoint)


# ---- A directory --------------------------------------------------------------------------------


def _directory(path: Path, is_group: bool) -> Iterator[Finding]:
    name = f"object.path {path}"
    try:
        facts = path.stat()
    except OSError as error:
        yield fail(f"{name}: {error.strerror}", "mount it, or make that folder")
        return
    if not stat.S_ISDIR(facts.st_mode):
        yield fail(f"{name}: is no folder", "name a folder that nodes share")
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield fail(f"{name}: cannot be read and written by this user", "chown it, or name another")
        return
    open_to = stat.S_IWOTH if is_group else stat.S_IWOTH | stat.S_IWGRP
    if facts.st_mode & open_to:
        who = "everybody" if facts.st_mode & stat.S_IWOTH else "its group"
        yield warn(
            f"{name}: {who} may write there, and plant blocks",
            f"chmod {'o-w' if is_group else 'go-w'} {path}"
            + ("" if is_group else ", or set object.shared_group = true for a group"),
        )
    entries = os.listdir(path)  # noqa: PTH208 - names are all that is asked for.
    foreign = [one for one in entries if not one.startswith("=") and one not in _NOBODYS]
    if MARKER not in entries and foreign:
        yield fail(
            f"{name}: holds other things, and no {MARKER}", "name an empty folder, or mount it"
        )
        return
    free = os.statvfs(path)
    state = "in use" if MARKER in entries else "empty, as it has to be at first"
    yield ok(f"{name}: {state}, {free.f_bavail * free.f_frsize >> 30} GiB free")
    kind = file_system(path)
    if kind in _SHORT_LIVED:
        yield warn(f"{name}: {kind} {_SHORT_LIVED[kind]}", "name a folder that outlives it")
    elif not kind.startswith(_SHARED):
        yield note(
            f"{name}: {kind or 'an unknown file system'}; only engines of this machine share it",
            "for several nodes: a file system that all of them mount",
        )


# ---- A bucket -----------------------------------------------------------------------------------


class _CurlFacts(ctypes.Structure):
    """The beginning of curl_version_info_data."""

    _fields_ = (
        ("age", ctypes.c_int),
        ("version", ctypes.c_char_p),
        ("version_num", ctypes.c_uint),
        ("host", ctypes.c_char_p),
        ("features", ctypes.c_int),
    )


def _curl(needs_tls: bool, name: str = CURL) -> Finding:
    try:
        library = ctypes.CDLL(name)
        library.curl_version_info.restype = ctypes.POINTER(_CurlFacts)
        facts = library.curl_version_info(3).contents
    except (OSError, AttributeError) as error:
        return fail(
            f"object.enabled: S3 needs libcurl, found when it is used: {error}", INSTALL_CURL
        )
    version = facts.version.decode(errors="replace")
    if facts.version_num < OLDEST_CURL:
        return fail(f"object.enabled: {name} is version {version}, too old for S3", INSTALL_CURL)
    if needs_tls and not facts.features & CURL_HAS_TLS:
        return fail(
            f"object.enabled: {name} {version} has no TLS, which https:// needs", INSTALL_CURL
        )
    return ok(f"object.enabled: libcurl {version}")


def _credentials(given: dict[str, object]) -> Iterator[Finding]:
    if given.get("object.access_key"):
        if not given.get("object.secret_key"):
            yield fail(
                "object.access_key: there is no object.secret_key beside it",
                "set object.secret_key (TERRACE_OBJECT_SECRET_KEY)",
            )
        return
    path = Path(str(given.get("object.credentials_file", "")))
    profile = str(given.get("object.profile") or "default")
    name = f"object.credentials_file {path}"
    read = configparser.RawConfigParser(strict=False, default_section="\0")
    try:
        read.read_string(path.read_text())
        mode = path.stat().st_mode
    except (OSError, UnicodeError, configparser.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        yield fail(f"{name}: {why}", "name a file as the AWS tools write it")
        return
    section = read[profile] if read.has_section(profile) else None
    for key in ("aws_access_key_id", "aws_secret_access_key"):
        if section is None or not section.get(key):
            yield fail(f"{name}: no {key} in profile [{profile}]", "add it, or set object.profile")
            return
    if mode & 0o077:
        yield warn(f"{name}: other users may read it", f"chmod 600 {path}")
    yield ok(f"{name}: profile [{profile}] has keys")


def _trust(given: dict[str, object]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(given.get("object.ca_file") or "") or None)


def _answer(given: dict[str, object], endpoint: str) -> Iterator[Finding]:
    """Asks for the bucket without a signature: who serves S3 answers, if only to refuse."""
    bucket = str(given.get("object.bucket", ""))
    parts = urlsplit(endpoint)
    host, path = parts.hostname or "", f"/{bucket}"
    if given.get("object.style") == "virtual":
        host, path = f"{bucket}.{host}", "/"
    name = f"object.endpoint {endpoint}"
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=ANSWER_LIMIT_S, context=_trust(given)
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=ANSWER_LIMIT_S)
        connection.request("HEAD", path)
        code = connection.getresponse().status
        connection.close()
    except ssl.SSLCertVerificationError as error:
        yield fail(
            f"{name}: its certificate is not trusted: {error.verify_message}",
            "name the authority's certificate in object.ca_file",
        )
    except socket.gaierror:
        yield fail(f"{name}: there is no host {host}", "object.style = path needs none per bucket")
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield fail(f"{name}: no answer: {why}", "start the store, or correct the address")
    else:
        if code == http.HTTPStatus.NOT_FOUND:
            yield warn(f"{name}: there is no bucket {bucket!r}, it says", "make it first")
        else:
            yield ok(
                f"{name}: answers for bucket {bucket!r} (status {code} to an unsigned request)"
            )
