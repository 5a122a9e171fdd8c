"""./dev matrix believes results, not names: a row stands when each of its tests ran and passed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dev import matrix, paths

REPORT = """<testsuites><testsuite>
<testcase classname="tests.integration.vllm.test_small" name="test_one[a]" />
<testcase classname="tests.integration.vllm.test_small" name="test_one[b]" />
<testcase classname="tests.integration.vllm.test_small" name="test_two"><failure /></testcase>
<testcase classname="tests.integration.vllm.test_small" name="test_three"><skipped /></testcase>
<testcase classname="python.tests.test_keys" name="test_four" />
</testsuite></testsuites>"""


@pytest.fixture
def found(tmp_path: Path) -> dict[str, bool]:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    return matrix.results([report])


def judge(found: dict[str, bool], *proof: str) -> tuple[int, list[str]]:
    return matrix.judge(matrix.Row("it", "served", proof), found)


def test_each_case_of_a_test_counts(found: dict[str, bool]) -> None:
    assert judge(found, "vllm/test_small.py::test_one") == (2, [])
    assert judge(found, "python/test_keys.py") == (1, [])


@pytest.mark.parametrize(
    ("proof", "why"),
    [
        ("vllm/test_small.py::test_two", "did not pass"),
        ("vllm/test_small.py::test_three", "did not pass"),
        ("vllm/test_small.py", "did not pass"),
        ("vllm/test_gone.py::test_one", "was not run"),
    ],
)
def test_what_failed_was_skipped_or_did_not_run_proves_nothing(
    proof: str, why: str, found: dict[str, bool]
) -> None:
    _, problems = judge(found, "vllm/test_small.py::test_one", proof)
    assert problems
    assert all(why in problem for problem in problems)


def test_every_proof_is_a_test_of_this_tree() -> None:
    folders = {"vllm": paths.ROOT / "tests" / "integration" / "vllm"}
    folders["python"] = paths.ROOT / "python" / "tests"
    for row in matrix.rows():
        assert row.state in ("served", "not cached", "passed through"), row.feature
        for proof in row.proof:
            place, _, name = proof.partition("::")
            folder, _, file = place.partition("/")
            text = (folders[folder] / file).read_text()
            assert re.search(rf"^def {name or 'test_'}", text, re.MULTILINE), proof


def test_the_page_has_the_rows_of_the_table() -> None:
    shown = re.findall(r"^\| (.*?) \| (\w[\w ]*) \| \d+ \|$", matrix.PAGE.read_text(), re.MULTILINE)
    assert shown == [(row.feature, row.state) for row in matrix.rows()]
