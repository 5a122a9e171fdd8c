"""The last line of ./dev test: what the reports of gtest, ctest and pytest add up to."""

from pathlib import Path

from dev import counts, test
from dev.counts import Counts

GTEST = """<testsuites><testsuite name="A">
<testcase name="One" status="run" result="completed"/>
<testcase name="Two" status="run" result="completed"><failure message="x"/></testcase>
<testcase name="Three" status="run" result="skipped"><skipped message="x"/></testcase>
<testcase name="Four" status="notrun" result="suppressed"/>
</testsuite></testsuites>"""
CLEAN = '<testsuites><testsuite><testcase name="One" result="completed"/></testsuite></testsuites>'


def ctest_report(folder: Path, **programs: str) -> Path:
    rows = "".join(
        f'<testcase name="{name}" status="{status}">'
        + ("<failure message=''/>" if status == "fail" else "")
        + "</testcase>"
        for name, status in programs.items()
    )
    report = folder / "ctest.xml"
    report.write_text(f"<testsuite>{rows}</testsuite>")
    return report


def test_gtest_cases_are_counted_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a_test.xml").write_text(GTEST)
    report = ctest_report(tmp_path, a_test="fail", plain="run")
    assert counts.ctest(report, tmp_path) == Counts(passed=2, failed=1, skipped=2)


def test_a_program_without_a_report_counts_as_itself(tmp_path: Path) -> None:
    report = ctest_report(tmp_path, crashed="fail", plain="run", missing="notrun")
    assert counts.ctest(report, tmp_path) == Counts(passed=1, failed=1, skipped=1)


def test_a_crash_after_the_last_test_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "leaky.xml").write_text(CLEAN)
    report = ctest_report(tmp_path, leaky="fail")
    assert counts.ctest(report, tmp_path) == Counts(passed=1, failed=1)


def test_pytest_report(tmp_path: Path) -> None:
    report = tmp_path / "p.xml"
    report.write_text(
        "<testsuites><testsuite><testcase name='a'/>"
        "<testcase name='b'><failure/></testcase><testcase name='c'><error/></testcase>"
        "<testcase name='d'><skipped/></testcase></testsuite></testsuites>"
    )
    assert counts.junit(report) == Counts(passed=1, failed=2, skipped=1)


def test_a_suite_without_a_report_is_a_failure(tmp_path: Path) -> None:
    assert counts.junit(tmp_path / "none.xml") == Counts(failed=1)
    (tmp_path / "broken.xml").write_text("<testsuite>")
    assert counts.junit(tmp_path / "broken.xml") == Counts(failed=1)
    assert counts.ctest(tmp_path / "none.xml", tmp_path) == Counts(failed=1)


def test_the_line() -> None:
    total = Counts(passed=1, failed=2) + Counts(passed=3, skipped=4)
    assert str(total) == "4 passed, 2 failed, 4 skipped"


def test_only_failed_programs_are_shown() -> None:
    log = """      Start  1: good
 1/2 Test  #1: good ......   Passed    0.1 sec
    Start 2: bad
2/2 Test #2: bad .....***Failed    0.2 sec
[ RUN      ] A.One
[       OK ] A.One (0 ms)
[ RUN      ] A.Two
bad_test.cc:7: Failure
[  FAILED  ] A.Two (0 ms)
      Start  3: next
"""
    assert test.failures(log).splitlines()[1:] == [
        "bad_test.cc:7: Failure",
        "[  FAILED  ] A.Two (0 ms)",
    ]
