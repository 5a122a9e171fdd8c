"""One wheel for every Python 3: closed library, old glibc; an engine finds it by its short name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.small import numbers

from dev import build

ROOT = Path(__file__).resolve().parents[2]
NEWEST_GLIBC = (2, 34)
# As the release build calls them, or the compiler cache takes them for others and finds nothing.
COMPILERS = {"CC": "cc", "CXX": "c++"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this tree; objects come from the compiler cache and from build/wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-build-isolation", "--no-deps"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | build.ccache_environment() | COMPILERS,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def library(unpacked: Path) -> Path:
    return unpacked / "terrace" / "lib" / "libterrace.so"


def test_the_wheel_fits_every_python_3(wheel: Path) -> None:
    assert re.fullmatch(r"terrace-[0-9.]+-py3-none-\w+\.whl", wheel.name)


def test_the_package_is_whole_and_carries_nothing_else(unpacked: Path) -> None:
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert "terrace/lib/libterrace.so" in names
    assert "terrace/bin/terrace" in names
    assert "terrace/connectors/vllm/connector.py" in names
    assert any(name.startswith("terrace/connectors/vllm/contracts/vllm-") for name in names)
    assert not [name for name in names if "/test" in name or "__pycache__" in name]
    tops = {name.split("/")[0] for name in names}
    assert tops - {"terrace"} == {top for top in tops if top.endswith(".dist-info")}


def test_vllm_finds_the_short_name(unpacked: Path) -> None:
    (points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "[vllm.general_plugins]" in points.read_text()
    assert "terrace.connectors.vllm:register" in points.read_text()


def test_the_command_comes_along(unpacked: Path) -> None:
    (points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "terrace = terrace.cli.main:main" in points.read_text()
    program = unpacked / "terrace" / "bin" / "terrace"
    program.chmod(0o755)  # As pip does; zipfile does not.
    command = [sys.executable, "-m", "terrace.cli", "version"]
    env = {name: text for name, text in os.environ.items() if not name.startswith("TERRACE_")}
    env["PYTHONPATH"] = str(unpacked)
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    assert said.startswith("terrace ")


def test_only_the_c_abi_is_exported(unpacked: Path) -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", str(library(unpacked))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = {line.split()[-1].split("@")[0] for line in listed.splitlines()}
    assert {name for name in names if not name.startswith(("terrace_", "TERRACE_"))} == set()


@pytest.mark.parametrize("file", ["lib/libterrace.so", "bin/terrace"])
def test_no_symbol_needs_a_newer_glibc(unpacked: Path, file: str) -> None:
    listed = subprocess.run(
        ["objdump", "-T", str(unpacked / "terrace" / file)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    needed = {
        tuple(int(part) for part in version.split("."))
        for version in re.findall(r"GLIBC_([0-9.]+)", listed)
    }
    assert needed
    assert max(needed) <= NEWEST_GLIBC


def test_the_unpacked_package_loads_its_own_library(unpacked: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
        "from terrace import _native\n"
        "print(_native.load().path, _native.load().library_version())\n"
    )
    # The variable would win over the package's own library.
    env = {name: value for name, value in os.environ.items() if name != "TERRACE_LIBRARY"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], env=env, check=True, capture_output=True, text=True
    )
    path, version = done.stdout.split()
    assert Path(path) == library(unpacked)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing in it but what `pip install .` put there.

    The build's tools come from the tests' own environment: no test uses the network.  `wheel` made
    the objects before.
    """
    assert wheel.exists()
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    tools = sysconfig.get_path("purelib")
    command = [str(python), "-m", "pip", "install", ".", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | build.ccache_environment() | {"PYTHONPATH": tools},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return python


def alone(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the environment's Python where nothing points at this tree."""
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    return subprocess.run(
        [str(python), *words], cwd="/", env=env, capture_output=True, text=True, check=False
    )


def test_pip_install_makes_a_package_that_works_alone(fresh: Path) -> None:
    told = alone(fresh, "-c", "import terrace; print(terrace.__file__)")
    assert told.returncode == 0, told.stderr
    assert Path(told.stdout.strip()).is_relative_to(fresh.parents[1])
    listed = alone(fresh, "-m", "pip", "list", "--format=freeze").stdout.split()
    assert {line.split("==")[0] for line in listed} <= {"terrace", "pip", "setuptools"}
    keys = "from array import array; from terrace import _native as n; "
    hashed = alone(fresh, "-c", keys + "print(len(n.hash_sequence(32, array('I', range(64)))))")
    assert hashed.stdout.strip() == "2", hashed.stderr


def test_the_doctor_of_the_installed_package_finds_nothing_wrong(fresh: Path) -> None:
    told = alone(fresh, "-m", "terrace.doctor")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "vllm: not installed here" in told.stdout


def test_the_short_name_is_an_entry_point_of_the_installed_package(fresh: Path) -> None:
    program = (
        "from importlib.metadata import entry_points as e\n"
        "print([p.load().__name__ for p in e(group='vllm.general_plugins') if p.name == 'terrace'])"
    )
    told = alone(fresh, "-c", program)
    assert told.stdout.strip() == "['register']", told.stderr


def test_an_engine_needs_the_short_name_alone_and_hits(wheel: Path, tmp_path: Path) -> None:
    """In both of its processes; nothing of this tree's own package can be found there."""
    package, model = tmp_path / "package", tmp_path / "llama"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(package), str(wheel)], check=True, capture_output=True)
    harness.run(tmp_path, "tiny.make", folder=str(model), kind="llama")
    found = harness.run(
        tmp_path,
        "spawned.short",
        multiprocessing=True,
        package=package,
        settings_env={"TERRACE_HOST_SIZE": "64MiB", "TERRACE_PLANNER_ENABLED": "false"},
        model=str(model),
        prompts=[numbers(1, 300)],
    )
    assert found["libraries"] == [str(library(package))]
    assert [answer["ledger"]["hit_tokens"] for answer in found["cold"]] == [{}]
    assert [answer["ledger"]["hit_tokens"] for answer in found["host"]] == [{"host": 288}]
    assert found["host"][0]["tokens"] == found["cold"][0]["tokens"]
