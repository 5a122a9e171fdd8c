"""The commands that README.md and docs/ tell people to type are run, or named here with a reason.

Nothing is run because a page says it: what runs stands in this file, word for word, and only reads
(a page may well name a command that removes things).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from engine_env import ROOT, engine_env

# Not `vllm serve`: it looks for a package named vllm, which the CPU build's is not.
SERVER = ["python", "-m", "vllm.entrypoints.openai.api_server"]
# Requests: tests/integration/vllm/test_server.py sends what they send.
REQUEST = ["curl", "http://localhost:8000/v1/completions"]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:\./dev|terrace|pip) [^`]+)`")
ASSIGNMENT = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)

# Run as they stand, with a host tier as the only setting.
RUN = {
    "./dev terrace config",
    "./dev terrace config --markdown > docs/settings.md",
    "terrace config",
    "terrace config --explain",
    "terrace config --markdown",
    "terrace metrics --list",
    "terrace version --json",
    "terrace metrics --list --markdown",
    "./dev demo --plan",
}
READING = (
    ("terrace", "config"),
    ("terrace", "metrics"),
    ("terrace", "version"),
    ("demo", "--plan"),
    ("demo", "--help"),
)
# Not run here, each for a reason.
ELSEWHERE = {
    "terrace move": "moves what an engine stored: tests/scenario/cli_disk_care_test.cc",
    "terrace verify": "reads what an engine stored: tests/scenario/cli_disk_care_test.cc",
    "./dev demo": "minutes on the real engine: started by hand; its plan is printed here, its "
    "judging tested in test_demo_steps.py and tests/tools/test_demo.py",
    "./dev demo --stay": "as ./dev demo",
    "./dev demo --s3": "as ./dev demo; test_demo_shared.py",
    "./dev demo --stack": "until ^C: test_demo_stack.py, and on the real engine "
    "tests/integration/vllm/test_stack.py",
    "./dev setup": "it installs; ./dev test runs it before this test",
    "./dev test": "it is what runs this test",
    "./dev test hybrid-real": "it downloads a model; tests/tools/test_runners.py tests the verb",
    "./dev test vllm-versions": "half an hour; the same",
    "./dev matrix --write": "it writes; tests/tools/test_matrix.py compares what it would write",
    "./dev matrix": "it judges the tests before it; tests/tools/test_matrix.py",
    "./dev dashboards": "it writes; test_dashboards.py compares what it would write",
    "python3 deploy/prometheus/bridge.py": "it serves until it is ended; test_dashboards.py starts "
    "it on a free port",
    "./dev bench disk": "minutes; tests/tools/test_runners.py tests the verb",
    "./dev bench vllm-ttft": "the same",
    "./dev bench vllm-off": "the same",
    "./dev bench peers": "the same",
    "./dev bench restart": "the same",
    "./dev campaign crash": "the same",
    "./dev campaign faults": "the same",
    "./dev campaign kills": "the same",
    "./dev campaign soak": "the same",
    "./dev check": "needs clang; tests/tools tests its rules, and holds this tree to those "
    "that need no other program",
    "./dev clean --all": "it removes what every test stands on; tests/tools/test_clean.py runs it "
    "on folders of its own",
    "terrace inspect /mnt/nvme0/terrace /mnt/nvme1/terrace": "these folders are made up; "
    "tests/scenario/cli_inspect_test.cc runs it on real ones",
    "terrace simulate": "it needs a trace; tests/scenario/cli_simulate_test.cc",
    "terrace simulate conversation_trace.jsonl.zst --host 2% --disk 10% --policy lru,hazard "
    "--admission expected": "the same",
    "terrace simulate conversation_trace.jsonl.zst --compare": "the same",
    "terrace simulate conversation_trace.jsonl --host 1% --policy lru,hazard": "the same",
    "terrace simulate --scenario chat,scan": "seconds; the same test",
    "terrace simulate --compare TRACE --policy NAME": "a pattern; the same test",
    "terrace simulate TRACE --host 2% --disk 10% --admission NAME": "the same",
    "terrace simulate TRACE --host 2% --disk 10% --preset rag --json": "the same",
    "terrace simulate --admission-loss": "a pattern; tests/scenario/cli_simulate_test.cc",
    "./dev bench admission": "as ./dev bench disk",
    "terrace advise": "as terrace status; tests/integration/vllm/test_observe.py",
    "terrace advise --host 8GiB --disk 100GiB": "the same",
    "terrace scrub": "as terrace status; tests/scenario/cli_scrub_test.cc",
    "terrace scrub --wait --rate 1GiB": "the same",
    "terrace verify --offline /mnt/nvme0/terrace": "these folders are made up; "
    "tests/scenario/cli_disk_care_test.cc runs it on real ones",
    "terrace verify --offline": "the same",
    "terrace inspect": "as above, with folders",
    "terrace wipe": "the same",
    "terrace wipe --yes": "the same",
    "terrace wipe /mnt/nvme0/terrace": "the same",
    "terrace wipe --yes /mnt/nvme0/terrace": "the same",
    "terrace wipe --yes --namespace ns-0002 /mnt/nvme0/terrace": "the same",
    "terrace move /mnt/nvme0/terrace /mnt/nvme1/terrace": "the same",
    "pip install .": "test_wheel.py does it",
    "terrace doctor": "test_doctor.py",
    "terrace serve MODEL --host 20GiB --disk 200GiB --disk-path /var/cache/terrace -- FLAGS…": "it "
    "starts a server on a made-up model; test_cli_serve.py makes such commands",
    "terrace serve": "the same",
    "terrace serve --name vllm-0": "the same",
    "terrace doctor --json": "test_doctor.py",
    "terrace selftest --model MODEL FLAGS…": "a minute on the real engine: test_commands.py",
    "terrace selftest --model M": "the same",
    "terrace migrate-config": "test_cli_migrate.py",
    "terrace key new /etc/terrace/key": "it writes a key; tests/scenario/cli_key_test.cc",
    "terrace key new PATH": "the same",
    "terrace key id PATH": "the same",
    "terrace key id": "tests/scenario/cli_encrypted_test.cc, with keys in each place",
    "terrace status": "it asks a running engine: tests/scenario/cli_live_test.cc on made-up ones, "
    "tests/integration/vllm/test_live.py on a real one",
    "terrace status --json": "as terrace status",
    "terrace why chatcmpl-9f1c": "it asks a running engine: tests/scenario/cli_ledger_test.cc on "
    "made-up ones, tests/integration/vllm/test_ledgers.py on a real one",
    "terrace why": "as terrace why with an id",
    "terrace top": "the same; on a terminal it goes on",
    "terrace top --once": "the same",
    "terrace top --json": "the same",
    "terrace pause": "as terrace status",
    "terrace readonly": "as terrace status",
    "terrace resume": "as terrace status",
    "curl --unix-socket SOCKET http://terrace/metrics": "the same socket; "
    "terrace/capi/admin_test.cc asks it",
    "terrace object gc --dry-run": "it works on a store: tests/scenario/cli_object_test.cc on a "
    "directory, tests/integration/s3 on a bucket",
    "terrace object gc --json": "the same",
    "cc -std=c11 -shared -fPIC -pthread -I include terrace/transfer/backends/plugin/example.c -o "
    "libexample.so": "tests/scenario/cli_backend_test.cc compiles it so, outside the tree",
    "terrace backend check ./libexample.so": "the same test",
    "terrace backend check": "the same test",
    "terrace migrate-config lmcache.yaml": "the file is made up; test_cli_migrate.py",
}


def blocks(kind: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for match in BLOCK.finditer((ROOT / page).read_text()):
            if match[1] == kind:
                found.append((page, match[2]))
    return found


Command = tuple[dict[str, str], list[str]]


def spoken(text: str) -> list[Command]:
    """(environment, words) of each command of a block; by the shell's quoting, but nothing runs."""
    found: list[Command] = []
    held = ""
    for line in text.splitlines():
        held += line + "\n"
        if line.endswith("\\"):
            held = held[:-2]
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # A quotation goes on in the next line.
            continue
        held = ""
        own = {}
        while words and (match := ASSIGNMENT.fullmatch(words[0])):
            own[match[1]] = match[2]
            words = words[1:]
        if words:
            found.append((own, words))
    assert not held, f"a quotation has no end: {held}"
    return found


def commands() -> list[Command]:
    return [command for _, text in blocks("sh") for command in spoken(text)]


def dev(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """./dev, for verbs that change nothing."""
    assert words[:2] in READING, f"./dev {shlex.join(words)} is not known to only read"
    return subprocess.run(
        ["./dev", *words],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def serving() -> list[str]:
    """README's command that serves a model."""
    (words,) = [words for _, words in commands() if "--kv-transfer-config" in words]
    return words


def settings_of(words: list[str]) -> dict[str, object]:
    transfer = json.loads(words[words.index("--kv-transfer-config") + 1])
    settings: dict[str, object] = transfer["kv_connector_extra_config"]
    return settings


def test_every_block_is_run_or_named() -> None:
    for _, words in commands():
        told = shlex.join(words)
        assert words[:3] == SERVER or words[:2] == REQUEST or told in ELSEWHERE, (
            f"{told}: run it in this file, or say in ELSEWHERE why not"
        )


def in_sentences() -> set[str]:
    """Commands that stand in a sentence; a line break in one is a blank."""
    texts = ((ROOT / page).read_text() for page in PAGES)
    return {" ".join(told.split()) for text in texts for told in INLINE.findall(text)}


def test_every_command_in_a_sentence_is_run_or_named() -> None:
    assert in_sentences() <= RUN | set(ELSEWHERE)


@pytest.mark.parametrize("told", sorted(RUN))
def test_a_command_of_the_pages_runs(told: str) -> None:
    words = shlex.split(told.removeprefix("./dev ").partition(" > ")[0])
    ran = dev(*words, TERRACE_HOST_SIZE="1GiB")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
    page = told.partition(" > ")[2]
    if page:
        assert ran.stdout == (ROOT / page).read_text(), f"{page} is stale: {told}"


def test_nothing_is_named_that_no_page_says() -> None:
    said = {shlex.join(words) for _, words in commands()} | in_sentences()
    assert set(ELSEWHERE) | RUN <= said


def test_what_removes_things_is_never_run() -> None:
    with pytest.raises(AssertionError, match="only read"):
        dev("clean", "--all")


def test_the_demo_prints_its_plan() -> None:
    ran = dev("demo", "--plan")
    assert "Terrace needs" in ran.stdout
    assert "CPU" in ran.stdout
    assert ran.returncode == 0, ran.stderr
    assert "--stay" in dev("demo", "--help").stdout


def test_the_one_flags_settings_are_accepted_by_the_real_loader(serving: list[str]) -> None:
    text = json.dumps(settings_of(serving))
    ran = dev("terrace", "config", "--json", "--engine", text)
    assert ran.returncode == 0, ran.stderr
    for name, value in settings_of(serving).items():
        assert name in ran.stdout, f"{name} = {value}"
    refused = dev("terrace", "config", "--engine", text.replace("host.size", "hots.size"))
    assert refused.returncode == 1
    assert "did you mean host.size?" in refused.stderr


ENGINE = """
import importlib.util, json, sys
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser

words = json.loads(sys.argv[1])
parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
assert importlib.util.find_spec(words[2]) is not None
config = parser.parse_args(words[3:]).kv_transfer_config
cls = KVConnectorFactory.get_connector_class(config)
print(json.dumps({
    "class": f"{cls.__module__}.{cls.__name__}",
    "policy": config.kv_load_failure_policy,
    "stores": config.is_kv_producer,
    "loads": config.is_kv_consumer,
    "settings": config.kv_connector_extra_config,
}))
"""


def test_the_one_flag_is_accepted_by_the_engine_and_names_our_class(
    serving: list[str], tmp_path: Path
) -> None:
    assert serving[:5] == [*SERVER, "--model", "MODEL"]
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, json.dumps(serving)],
        env=engine_env(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "class": "terrace.connectors.vllm.connector.TerraceConnector",
        "policy": "recompute",
        "stores": True,
        "loads": True,
        "settings": settings_of(serving),
    }


def test_the_settings_file_of_the_docs_is_accepted_where_it_says(tmp_path: Path) -> None:
    (text, named), *others = (
        (text, re.search(r"# (\S+), named by (\w+)", text)) for _, text in blocks("toml")
    )
    assert named is not None, "the first one says where it lies"
    for part, _ in others:  # Parts of such a file.
        text += part
    (own, _words) = next(row for row in commands() if row[0])
    assert own[named[2]] == named[1]
    file = tmp_path / "terrace.toml"
    file.write_text(text)
    ran = dev("terrace", "config", "--json", **own | {named[2]: str(file)})
    assert ran.returncode == 0, ran.stderr
    for part, rows in tomllib.loads(text).items():
        for name in rows:
            assert f"{part}.{name}" in ran.stdout
    assert str(file) in ran.stdout


# What provokes each message of operations.md, in its order.
PROVOKED: tuple[tuple[list[str], dict[str, str]], ...] = (
    (["--engine", '{"hots.size":"1GiB"}'], {}),
    ([], {"TERRACE_HOST_SIZE": "20Gib"}),
    ([], {"DYN_KVBM_CPU_CACHE_GB": "20", "TERRACE_HOST_SIZE": "20GiB"}),
    ([], {}),
    ([], {"TERRACE_CONFIG_FILE": "/nonexistent/terrace.toml"}),
    ([], {"TERRACE_HOST_SIZE": "1GiB", "TERRACE_OBJECT_ENABLED": "true"}),
)


def test_the_messages_of_the_docs_are_the_real_ones() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (table,) = re.findall(r"\| message \| way out \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    messages = re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE)
    assert len(messages) == len(PROVOKED)
    for message, (words, variables) in zip(messages, PROVOKED, strict=True):
        ran = dev("terrace", "config", *words, **variables)
        pattern = ".*".join(re.escape(part) for part in message.split("…"))
        assert re.search(pattern, ran.stderr), f"{message}\n{ran.stderr}"
        assert ran.returncode == 1


def test_the_log_lines_of_the_docs_are_in_the_code() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (table,) = re.findall(r"\| line \| what is wrong \|.*\n\|[-|]*\n((?:\|.*\n)+)", text)
    lines = [
        told for row in table.splitlines() for told in re.findall(r"`(.*?)`", row.split("|")[1])
    ]
    sources = [*(ROOT / "terrace").rglob("*.cc"), *(ROOT / "python" / "terrace").rglob("*.py")]
    code = "\n".join(path.read_text() for path in sources).replace('\\"', '"')
    assert lines
    for line in lines:
        for part in line.split("…"):
            assert part.strip(' "') in code, line


def test_every_kept_result_is_explained_and_whole() -> None:
    folder = ROOT / "docs" / "results"
    page = (folder / "README.md").read_text()
    for path in folder.glob("*.jsonl"):
        assert f"({path.name})" in page, f"docs/results/README.md says nothing of {path.name}"
        for row in path.read_text().splitlines():
            result = json.loads(row)
            assert {"name", "params", "unit", "value", "runs", "machine", "commit"} <= set(result)


def test_every_folder_says_what_lives_there() -> None:
    without = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in ("build", "dist", "__pycache__") and not name.startswith(".")
        ]
        if files and "README.md" not in files:
            without.append(str(Path(folder).relative_to(ROOT)))
    assert without == []


LLMS = ROOT / "llms.txt"


def test_what_llms_txt_links_to_is_there() -> None:
    """Its shape is that of such files: a title, a summary, lists of links with a word on each."""
    rows = LLMS.read_text().splitlines()
    assert rows[0] == "# Terrace"
    assert rows[2].startswith("> ")
    links = re.findall(r"\[([^\]]+)\]\(([^)]+)\)", LLMS.read_text())
    assert len(links) > 10
    for text, target in links:
        assert text == target
        assert (ROOT / target).is_file(), target
    for row in rows:
        if row.startswith("- "):
            assert re.fullmatch(r"- \[.*\)(, \[.*\))*: .+", row), row


def test_llms_txt_leaves_no_page_out() -> None:
    linked = set(re.findall(r"\]\(([^)]+)\)", LLMS.read_text()))
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {"docs/README.md"}
    assert pages <= linked


def test_llms_txt_names_as_not_built_what_the_readme_does() -> None:
    page = (ROOT / "README.md").read_text()
    told = re.search(r"Not built: ([^.]*)\.", LLMS.read_text())
    assert told is not None
    for row, words in (("CUDA devices", "CUDA"), ("peer tier", "memory of other nodes")):
        is_missing = re.search(rf"^\| {row}.*\| not built", page, re.MULTILINE) is not None
        assert (words in " ".join(told[1].split())) == is_missing, f"{row}: llms.txt or README"
