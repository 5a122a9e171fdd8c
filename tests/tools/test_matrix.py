"""./dev matrix believes results, not names: a row stands when each of its tests ran and passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev import campaign, matrix, paths, say

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


def test_a_report_of_gtest_names_the_file(tmp_path: Path) -> None:
    report = tmp_path / "gtest.xml"
    case = '<testcase classname="Disk/TierContract" name="Serves/0" file="{}" line="7" />'
    for file in (paths.ROOT / "tests" / "x.h", Path("../../tests/x.h")):
        report.write_text(f"<testsuites>{case.format(file)}</testsuites>")
        found = matrix.results([report])
        assert found == {"cpp/tests/x.h::Disk/TierContract.Serves/0": True}
        assert judge(found, "cpp/tests/x.h") == (1, [])


@pytest.mark.parametrize(
    ("proof", "test", "is_it"),
    [
        ("vllm/", "vllm/test_a.py::test_x", True),
        ("vllm/test_a.py", "vllm/test_a.py::test_x", True),
        ("vllm/test_a.py::test_x", "vllm/test_a.py::test_x[1]", True),
        ("vllm/test_a.py::test_x", "vllm/test_a.py::test_xy", False),
        ("vllm/test_a.py::test_x*", "vllm/test_a.py::test_xy", True),
        ("vllm/test_a.py::*[float32-", "vllm/test_a.py::test_x[float32-32]", True),
        ("vllm/test_a.py::*[float32-", "vllm/test_a.py::test_x[bfloat16-32]", False),
        ("vllm/test_a.py::*-32]", "vllm/test_a.py::test_x[bfloat16-32]", True),
        ("vllm/test_a.py::*-32]", "vllm/test_a.py::test_x[bfloat16-64]", False),
        ("python/test_a.py", "vllm/test_a.py::test_x", False),
    ],
)
def test_a_proof_is_as_much_of_a_name_as_it_says(proof: str, test: str, is_it: bool) -> None:
    assert matrix.matches(proof, test) == is_it


def test_a_row_can_leave_tests_out() -> None:
    row = matrix.Row("it", "served", ("vllm/",), without=("vllm/test_b.py",))
    assert row.has("vllm/test_a.py::test_x")
    assert not row.has("vllm/test_b.py::test_x")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (matrix.Row("it", "splendid", ("vllm/",)), "splendid is none of"),
        (matrix.Row("it", "unknown", never="not yet"), "not yet is none of"),
        (matrix.Row("it", "served", ("vllm/",), campaign="fly"), "there is no campaign fly"),
        (matrix.Row("it", "served"), "names neither proof nor"),
        (matrix.Row("it", "served", ("elsewhere/test_a.py",)), "begins with none of"),
    ],
)
def test_a_row_that_claims_without_saying_by_what_is_refused(row: matrix.Row, why: str) -> None:
    (told,) = matrix.problems(row, campaign.table())
    assert told.startswith("it: ")
    assert why in told


@pytest.fixture(scope="module")
def known() -> list[str]:
    """All tests that the table may count."""
    return matrix.tests(matrix.rows())


def test_every_row_says_by_what_it_stands(known: list[str]) -> None:
    for row in matrix.rows():
        assert matrix.problems(row, campaign.table()) == []
        for proof in (*row.proof, *row.without):
            assert any(matrix.matches(proof, test) for test in known), f"{proof} is no test"
    places = {test.partition("/")[0] for test in known}
    assert places == set(matrix.PLACES)


def test_the_page_is_current(known: list[str]) -> None:
    made = matrix.page(matrix.rows(), known)
    assert matrix.PAGE.read_text() == made, "docs/support.md is stale: ./dev matrix --write"


def test_the_page_changes_with_the_tests(known: list[str]) -> None:
    listed = matrix.rows()
    gone = [test for test in known if not test.startswith("vllm/test_small.py")]
    assert matrix.page(listed, gone) != matrix.page(listed, known)


def test_a_row_tells_who_ran_it() -> None:
    def told(*proof: str, **more: str) -> str:
        return matrix.Row("it", "works", proof, **more).run_by()  # type: ignore[arg-type]

    assert told("vllm/", "cpp/x_test.cc") == "real engine, C++ tests"
    assert told("vllm/", campaign="vllm-0.31") == "campaign `vllm-0.31`"
    assert told("python/x.py", never="validated, never run") == "Python tests, validated, never run"
    assert told(never="never run") == "never run"
    assert told() == "–"


def test_the_last_run_is_judged_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    table = tmp_path / "matrix.toml"
    row = (
        '[[table.row]]\nsubject = "{}"\nstate = "works"\nproof = ["vllm/test_small.py::test_{}"]\n'
    )
    listed = '[[table]]\ntitle = "Things"\n' + row.format("a thing", "one")
    monkeypatch.setattr(matrix, "REPORTS", tmp_path)
    read = matrix.rows
    monkeypatch.setattr(matrix, "rows", lambda: read(table))
    table.write_text(listed)
    assert matrix.main([]) == 0
    assert "2 passed  a thing" in capsys.readouterr().out
    table.write_text(listed + row.format("another", "two"))
    assert matrix.main([]) == 1
    shown = capsys.readouterr().out
    assert "another: vllm/test_small.py::test_two did not pass" in shown
    assert "1 rows are not proven" in shown


def test_a_word_that_it_does_not_know_writes_nothing_and_judges_nothing() -> None:
    before = matrix.PAGE.read_text()
    for words in (["--wrte"], ["--write", "x"]):
        with pytest.raises(say.Stop, match="matrix does not know"):
            matrix.main(words)
    assert matrix.PAGE.read_text() == before
