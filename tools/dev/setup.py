"""./dev setup: says what it will do, stops early where it cannot work, then does it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dev import apt, chromium, host, model, paths, prometheus, say, services, venv

ENGINE = ("build", "engine")


@dataclass(frozen=True)
class Plan:
    """What is missing."""

    packages: list[str]
    environment: bool
    model: bool
    services: bool = False
    prometheus: bool = False
    chromium: bool = False

    def disk(self) -> dict[Path, float]:
        """Bytes each folder will grow by, at most."""
        cache = host.ENVIRONMENT_DISK * self.environment + host.MODEL_DISK * self.model
        cache += host.SERVICES_DISK * self.services
        cache += host.PROMETHEUS_DISK * self.prometheus
        cache += host.CHROMIUM_DISK * self.chromium
        built = (paths.BUILD / "release").exists()
        return {
            paths.cache(): cache,
            paths.BUILD: host.BUILD_DISK / (3 if built else 1),
            Path("/usr"): host.APT_DISK if self.packages else 0,
        }


def plan(groups: Sequence[str]) -> Plan:
    packages = apt.missing(groups) if apt.is_there() else apt.packages(groups)
    model_folder = paths.cache() / f"model-{model.key()}"
    return Plan(
        packages,
        environment=venv.present() is None,
        model=not model_folder.exists(),
        services=not services.present(),
        prometheus=not prometheus.present(),
        chromium=not chromium.present(),
    )


def _stop_without_folders() -> None:
    """Before anything in them is looked at: who may not enter a folder may not ask what it has."""
    found = host.folder_problems(
        {
            paths.cache(): "set TERRACE_CACHE_DIR to a folder of this user",
            paths.BUILD: "run ./dev as whoever owns this tree, or in a clone of this user",
        }
    )
    if found:
        raise _cannot_work(found)


def _cannot_work(found: Sequence[str]) -> say.Stop:
    return say.Stop("it cannot work on this machine:\n  - " + "\n  - ".join(found))


def _describe(what: Plan, machine: host.Host) -> None:
    gib = host.GIB
    cache = paths.cache()
    free = shutil.disk_usage(host.existing(cache)).free
    need = sum(what.disk().values())
    packages = ", ".join(what.packages) if what.packages else "all there"
    environment = (
        "to make: vLLM's CPU build, torch and the test tools, 0.7 GiB to download "
        "(torch from a source of CPU wheels in pip's settings)"
        if what.environment
        else "there"
    )
    model_text = "to make: SmolLM2-135M, 0.1 GiB to download" if what.model else "there"
    say.line("Terrace needs")
    say.line(f"  Debian packages     {packages}")
    say.line(f"  Python environment  {environment}")
    say.line(f"  model               {model_text}")
    servers = ["SeaweedFS, 0.05 GiB to download"] * what.services
    servers += ["Prometheus, 0.02 GiB to download"] * what.prometheus
    servers += ["Chromium, 0.1 GiB to download"] * what.chromium
    services_text = f"to make: {'; '.join(servers)}" if servers else "there"
    say.line(f"  servers for tests   {services_text}")
    say.line(
        f"  disk                {need / gib:.1f} GiB more; {free / gib:.1f} GiB free at {cache}"
    )
    say.line(
        f"  memory              {host.MEMORY_NEEDED / gib:.0f} GiB; this machine has "
        f"{machine.memory / gib:.1f} GiB and {machine.cpus} CPUs"
    )
    say.line(f"  CPU                 x86_64 with AVX2; here: {machine.instruction_sets()}")


def explain(groups: Sequence[str] = ENGINE) -> None:
    """Prints what is missing and stops where it cannot work; changes nothing."""
    _stop_without_folders()
    _stop_early(plan(groups), say_it=True)


def _stop_early(what: Plan, say_it: bool) -> None:
    machine = host.read()
    if say_it:
        _describe(what, machine)
    found = problems(what, machine)
    if found:
        raise _cannot_work(found)


def problems(what: Plan, machine: host.Host) -> list[str]:
    found = host.problems(machine) + host.disk_problems(what.disk())
    if what.packages and not apt.is_there():
        names = " ".join(what.packages)
        found.append(f"this system has no apt-get; Debian 12 is what is supported, with {names}")
    elif what.packages and not apt.may_install():
        names = " ".join(what.packages)
        found.append(
            "Debian packages are missing and this user is neither root nor may use sudo; "
            f"let an administrator run: apt-get install --no-install-recommends {names}"
        )
    return found


def _write_env(environment: Path, models: Path, servers: Path, judge: Path, browser: Path) -> None:
    """build/env.json: where tests, benches and the demo find what setup made."""
    content = {"venv": str(environment), "services": str(servers)}
    content |= {"prometheus": str(judge), "chromium": str(browser)}
    content |= {f"model_{dtype}": str(models / dtype) for dtype in model.DTYPES}
    text = json.dumps(content, indent=1) + "\n"
    if not paths.ENV_FILE.exists() or paths.ENV_FILE.read_text() != text:
        paths.BUILD.mkdir(parents=True, exist_ok=True)
        paths.ENV_FILE.write_text(text)


def require(groups: Sequence[str] = ENGINE, *, engine: bool = True, quiet: bool = True) -> None:
    """Makes sure that these package groups, and the environment and model, are there.

    `quiet` says nothing when nothing is missing.
    """
    _stop_without_folders()
    what = plan(groups)
    if not engine:
        what = Plan(what.packages, environment=False, model=False)
    incomplete = what != Plan([], environment=False, model=False)
    _stop_early(what, say_it=incomplete or not quiet)
    apt.install(what.packages)
    if engine:
        made = (venv.ensure(), model.ensure(), services.ensure())
        _write_env(*made, prometheus.ensure(), chromium.ensure())


def main(arguments: Sequence[str]) -> int:
    unknown = [word for word in arguments if word != "--check"]
    if unknown:
        raise say.Stop(f"setup does not know {unknown[0]}", "it takes --check or nothing")
    groups = (*ENGINE, "check") if "--check" in arguments else ENGINE
    require(groups, quiet=False)
    say.note("set up; next: ./dev test, ./dev demo")
    return 0
