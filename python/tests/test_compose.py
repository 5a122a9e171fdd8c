"""deploy/compose against the schema of compose files, and against what its parts say of each other.

Nothing here starts a container: it has never been run.
"""

from __future__ import annotations

import copy
import importlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest

from dev import build, schemas
from engine_env import ROOT, engine_env

FOLDER = ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
GRAFANA = PurePosixPath("/etc/grafana/provisioning")


def read(path: Path) -> Any:
    yaml = importlib.import_module("yaml")  # The engine's environment has it, without types.
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def compose() -> Any:
    return read(FILE)


@pytest.fixture(scope="module")
def problem() -> Callable[[Any], str]:
    """What is wrong with a compose file by the schema; nothing: ''."""
    folder = schemas.folder()
    assert folder.exists(), "./dev test makes it: tools/dev/schemas.py"
    sys.path.insert(0, str(folder))
    try:
        library = importlib.import_module("jsonschema_rs")
    finally:
        sys.path.remove(str(folder))
    validator = library.validator_for(json.loads((folder / schemas.COMPOSE).read_text()))
    return lambda content: "\n".join(str(error) for error in validator.iter_errors(content))


def test_it_is_a_compose_file_by_the_schema(compose: Any, problem: Callable[[Any], str]) -> None:
    assert problem(compose) == ""


@pytest.mark.parametrize(
    ("service", "name", "value"),
    [
        ("engine", "prots", ["127.0.0.1:8000:8000"]),
        ("engine", "ports", 8000),
        ("engine", "build", {"contxt": "."}),
        ("prometheus", "depends_on", {"bridge": {"condition": "soon", "since": 3}}),
        ("grafana", "image", ["grafana"]),
        ("load", "healthcheck", {"interval": []}),
    ],
)
def test_the_schema_finds_what_is_wrong(
    service: str, name: str, value: Any, compose: Any, problem: Callable[[Any], str]
) -> None:
    wrong = copy.deepcopy(compose)
    wrong["services"][service][name] = value
    assert problem(wrong)


def test_images_are_named_and_no_host_is() -> None:
    for path in (FILE, FOLDER / "engine.Dockerfile"):
        text = path.read_text()
        images = re.findall(r"^\s*(?:image:|FROM) (\S+)$", text, re.MULTILINE)
        assert images
        for image in images:
            # A first part with a dot or a port would be a registry's host.
            assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)?(:[\w.-]+)?", image), image
            assert image == "terrace-engine" or ":" in image, f"{image} has no version"
        for address in re.findall(r"https?://\S+", text):
            assert address.startswith("http://127.0.0.1:"), address


def ports(service: Any) -> list[tuple[str, str, str]]:
    return [tuple(text.split(":")) for text in service.get("ports", [])]


def test_nothing_listens_for_other_machines(compose: Any) -> None:
    published = [row for service in compose["services"].values() for row in ports(service)]
    assert {row[0] for row in published} == {"127.0.0.1"}
    assert len({row[1] for row in published}) == len(published) == 3


def mounts(service: Any) -> dict[PurePosixPath, str]:
    """Path inside -> file or folder of this tree, or a volume's name."""
    found = {}
    for text in service.get("volumes", []):
        source, target, *mode = text.split(":")
        found[PurePosixPath(target)] = source
        assert mode == (["ro"] if source.startswith(".") else []), text
    return found


def test_what_is_mounted_is_there(compose: Any) -> None:
    for service in compose["services"].values():
        for source in mounts(service).values():
            if source.startswith("."):
                assert (FOLDER / source).exists(), source
            else:
                assert source in compose["volumes"]


def test_prometheus_finds_the_bridge_and_its_rules(compose: Any) -> None:
    services = compose["services"]
    bridge, prometheus = services["bridge"], services["prometheus"]
    assert prometheus["network_mode"] == "service:bridge"
    (listen,) = re.findall(r"--listen=(\S+)", " ".join(bridge["entrypoint"]))
    inside = mounts(prometheus)
    place = PurePosixPath("/etc/prometheus/prometheus.yml")  # The image's default.
    settings = read(FOLDER / inside[place])
    (job,) = settings["scrape_configs"]
    assert [urlsplit(row["url"]).netloc for row in job["http_sd_configs"]] == [listen]
    for rules in settings["rule_files"]:
        assert place.parent / rules in inside


def test_the_bridge_sees_the_engines_sockets(compose: Any) -> None:
    services = compose["services"]
    engine, bridge = services["engine"], services["bridge"]
    (directory,) = re.findall(r"--directory=(\S+)", " ".join(bridge["entrypoint"]))
    assert f"--set=attach.directory={directory}" in engine["command"]
    place = PurePosixPath(directory)
    assert mounts(engine)[place] == mounts(bridge)[place]
    assert engine["image"] == bridge["image"] == services["load"]["image"]  # One user.
    text = (FOLDER / "engine.Dockerfile").read_text()
    made = re.findall(r"install --directory --owner terrace --mode 0700 (.*)", text)[0].split()
    assert set(made) == {str(path) for path in mounts(engine)}
    script = bridge["entrypoint"][1]
    assert (ROOT / PurePosixPath(script).relative_to("/src")).exists()


def test_grafana_finds_prometheus_and_the_dashboards(compose: Any) -> None:
    services = compose["services"]
    inside = mounts(services["grafana"])
    (source,) = read(FOLDER / inside[GRAFANA / "datasources" / "terrace.yml"])["datasources"]
    address = urlsplit(source["url"])
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    # Prometheus has the bridge's network, and so its name there.
    assert services["bridge"]["networks"]["default"]["aliases"] == [address.hostname]
    assert ("127.0.0.1", "9090", str(address.port)) in ports(services["bridge"])
    (provider,) = read(FOLDER / inside[GRAFANA / "dashboards" / "terrace.yml"])["providers"]
    place = PurePosixPath(provider["options"]["path"])
    boards = sorted((FOLDER / inside[place]).glob("*.json"))
    assert len(boards) >= 4
    variables = {
        (row["type"], row["query"])
        for path in boards
        for row in json.loads(path.read_text())["templating"]["list"]
        if row["name"] == "datasource"
    }
    assert variables == {("datasource", source["type"])}
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert PurePosixPath(home).parent == place
    assert (FOLDER / inside[place] / PurePosixPath(home).name).exists()


def printed(compose: Any, tmp_path: Path) -> list[str]:
    """What `terrace serve` would run in the engine's container."""
    words = list(compose["services"]["engine"]["command"])
    assert words.pop(0) == "serve"
    # Where it is not the container: these have to be there.
    for path in ("/opt/model", "/var/cache/terrace"):
        words = [word.replace(path, str(tmp_path)) for word in words]
    # A socket's path is short.
    words = [word.replace("/run/terrace", tempfile.gettempdir()) for word in words]
    program = build.folder("release") / "bin" / "terrace"
    ran = subprocess.run(
        [sys.executable, "-m", "terrace.cli", "serve", "--print", *words],
        env=engine_env(tmp_path) | {"TERRACE_PROGRAM": str(program)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return shlex.split(ran.stdout)


def test_terrace_serve_takes_the_engines_command(compose: Any, tmp_path: Path) -> None:
    command = printed(compose, tmp_path)
    settings = json.loads(command[command.index("--kv-transfer-config") + 1])
    chosen = settings["kv_connector_extra_config"]
    assert chosen["host.size"] == "1GiB"
    assert chosen["disk.paths"] == [str(tmp_path)]
    assert ("127.0.0.1", "8000", "8000") in ports(compose["services"]["engine"])
    assert {"--port=8000", "--served-model-name=smol"} <= set(command)


def test_the_load_asks_where_the_engine_listens(compose: Any) -> None:
    engine, load = compose["services"]["engine"], compose["services"]["load"]
    assert load["network_mode"] == "service:engine"
    assert load["entrypoint"][1:3] == ["-m", "demo.load"]
    assert load["entrypoint"][3] in engine["command"]
    assert (ROOT / "tools" / "demo" / "load.py").exists()


def test_the_page_says_that_it_was_never_run() -> None:
    assert "**Validated, never run.**" in (FOLDER / "README.md").read_text()
    assert "never run" in FILE.read_text()
