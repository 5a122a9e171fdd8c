"""The demo says first what it needs, judges its rows strictly, and writes whole reports."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from demo import __main__ as demo
from demo import report
from demo.report import Report, Row
from demo.server import EngineError
from dev import apt, build, host, main, paths, run, setup, venv
from s3_server import S3Server

GOOD_HOST = host.Host("x86_64", 4, frozenset({"avx2"}), 16 * host.GIB)
GOOD_ROWS = (
    Row("a", "cold", "none", 100, {}, [900.0], equal=True, expected=True),
    Row("b", "own", "device", 100, {"device": 96}, [10.0, 12.0, 11.0], equal=True, expected=True),
    Row("c", "host", "host", 100, {"host": 96}, [30.0], equal=True, expected=True),
    Row("d", "turn <two>", "host", 140, {"host": 128}, [40.0], equal=True, expected=True),
    Row("e", "disk", "disk", 100, {"disk": 96}, [60.0], equal=True, expected=True, note="a & b"),
    Row("f", "flipped", "disk", 100, {"disk": 32}, [500.0], equal=True, expected=True),
)


def made_of(*rows: Row) -> Report:
    result = Report("a model", "an engine", 32, 1_474_560)
    for row in rows:
        result.add(replace(row))
    return result


def good() -> Report:
    return made_of(*GOOD_ROWS)


# ---- Before anything is installed ---------------------------------------------------------------


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run would have changed on the machine or started; nothing of it really happens."""
    calls: list[str] = []
    monkeypatch.setattr(host, "read", lambda: GOOD_HOST)
    monkeypatch.setattr(apt, "missing", lambda _groups: ["cmake"])
    monkeypatch.setattr(apt, "is_there", lambda: True)
    monkeypatch.setattr(apt, "may_install", lambda: True)
    monkeypatch.setattr(apt, "install", lambda names: calls.append(f"apt {' '.join(names)}"))
    monkeypatch.setattr(venv, "ensure", lambda: calls.append("environment"))
    monkeypatch.setattr(run, "logged", lambda *_args, **_kw: calls.append("program"))
    monkeypatch.setattr(run, "shown", lambda *_args, **_kw: calls.append("program"))
    return calls


def no_avx2(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(host, "read", lambda: replace(GOOD_HOST, flags=frozenset({"sse4_2"})))


def little_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(host, "read", lambda: replace(GOOD_HOST, memory=2 * host.GIB))


def little_disk(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=host.GIB // 2))


def no_rights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(apt, "may_install", lambda: False)


def no_apt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(apt, "is_there", lambda: False)


@pytest.mark.parametrize("verb", [["demo"], ["demo", "--plan"], ["setup"], ["test"]])
def test_a_cache_that_is_no_folder_stops_it_before_anything_is_asked_of_it(
    verb: list[str],
    touched: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path / "file"))
    assert main.main(verb) == 1
    assert f"{tmp_path / 'file'} is no folder; set TERRACE_CACHE_DIR" in capsys.readouterr().err
    assert touched == []


@pytest.mark.parametrize("verb", [["demo"], ["demo", "--plan"], ["setup"], ["test"]])
@pytest.mark.parametrize(
    ("lack", "reason"),
    [
        (no_avx2, "AVX2"),
        (little_memory, "2.0 GiB of memory"),
        (little_disk, "0.5 GiB free"),
        (no_rights, "neither root nor may use sudo"),
        (no_apt, "Debian 12"),
    ],
)
def test_where_it_cannot_work_it_stops_before_it_changes_anything(
    verb: list[str],
    lack: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    touched: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lack(monkeypatch)
    assert main.main(verb) == 1
    shown = capsys.readouterr()
    assert "Terrace needs" in shown.out
    assert reason in shown.err
    assert touched == []


def test_the_plan_names_packages_disk_memory_and_cpu(
    touched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["demo", "--plan"]) == 0
    page = capsys.readouterr().out
    for word in ("Debian packages", "cmake", "Python environment", "model", "GiB more", "memory"):
        assert word in page
    assert "AVX2" in page
    assert touched == []


def test_what_is_missing_is_told_before_it_is_installed(
    touched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(_names: object) -> None:
        assert "Terrace needs" in capsys.readouterr().out
        raise KeyboardInterrupt

    monkeypatch.setattr(apt, "install", install)
    assert main.main(["demo"]) == 130
    assert touched == []


def test_downloads_are_named_when_they_are_due(capsys: pytest.CaptureFixture[str]) -> None:
    setup._describe(setup.Plan([], environment=True, model=True), GOOD_HOST)
    page = capsys.readouterr().out
    assert "0.7 GiB to download" in page
    assert "0.1 GiB to download" in page


# ---- The verdict --------------------------------------------------------------------------------


def test_a_good_run_has_no_faults() -> None:
    assert good().faults() == []


@pytest.mark.parametrize("step", report.STEPS)
@pytest.mark.parametrize("doctored", ["equal", "expected"])
def test_one_bad_row_is_a_fault(step: str, doctored: str) -> None:
    rows = [replace(row) for row in GOOD_ROWS]
    setattr(rows[report.STEPS.index(step)], doctored, False)
    (fault,) = made_of(*rows).faults()
    assert fault.startswith(f"({step})")


@pytest.mark.parametrize("samples", [[0.0], [5.0, 5.0, 0.0], [-1.0]])
def test_a_time_that_is_not_positive_is_a_fault(samples: list[float]) -> None:
    rows = [*GOOD_ROWS[:-1], replace(GOOD_ROWS[-1], samples_ms=samples)]
    (fault,) = made_of(*rows).faults()
    assert fault == "(f) flipped: a time to first token that is not positive"


def test_a_step_that_did_not_run_is_a_fault() -> None:
    assert made_of(*GOOD_ROWS[:-1]).faults() == ["(f) did not run"]
    assert len(made_of().faults()) == len(report.STEPS)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "WORK", tmp_path)
    monkeypatch.setattr(demo, "LOG", tmp_path / "engine.log")
    return tmp_path


def pretend(monkeypatch: pytest.MonkeyPatch, *rows: Row, error: Exception | None = None) -> None:
    """The steps ran and found `rows`, then perhaps failed."""

    def ran(result: Report, _stay: bool) -> object:
        for row in rows:
            result.add(replace(row))
        if error is not None:
            raise error
        return SimpleNamespace(port=1234, process=SimpleNamespace(pid=77))

    monkeypatch.setattr(demo, "run", ran)


def test_the_exit_status_says_whether_all_was_right(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, *GOOD_ROWS)
    assert demo.main([]) == 0
    pretend(monkeypatch, *GOOD_ROWS[:-1], replace(GOOD_ROWS[-1], equal=False))
    assert demo.main([]) == 1
    shown = capsys.readouterr()
    assert "(f) flipped: an answer differs" in shown.err
    assert "flipped" in shown.out
    assert json.loads((work / "report.json").read_text())["good"] is False


@pytest.mark.parametrize("error", [EngineError("it died"), LookupError("no frame")])
def test_a_broken_run_fails_and_keeps_the_rows_it_has(
    work: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pretend(monkeypatch, *GOOD_ROWS[:2], error=error)
    assert demo.main([]) == 1
    content = json.loads((work / "report.json").read_text())
    assert [row["step"] for row in content["rows"]] == ["a", "b"]
    assert not content["good"]


@pytest.mark.usefixtures("work")
def test_stay_says_how_to_talk_to_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, *GOOD_ROWS)
    assert demo.main(["--stay"]) == 0
    page = capsys.readouterr().out
    assert "http://127.0.0.1:1234/v1" in page
    assert "curl" in page
    assert "kill 77" in page


# ---- Two engines over one bucket ----------------------------------------------------------------

SHARED_ROWS = (
    *GOOD_ROWS[:2],
    Row("c", "out of S3", "object", 100, {"object": 64}, [70.0], equal=True, expected=True),
    Row("d", "host", "host", 100, {"host": 96}, [30.0], equal=True, expected=True),
    Row("e", "killed", "none", 100, {}, [800.0], equal=True, expected=True),
)


def pretend_shared(monkeypatch: pytest.MonkeyPatch, *rows: Row) -> None:
    def ran(result: Report) -> None:
        for row in rows:
            result.add(replace(row))

    monkeypatch.setattr(demo, "run_shared", ran)


def test_of_two_engines_the_rows_and_the_page_are_as_of_one(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_shared(monkeypatch, *SHARED_ROWS)
    assert demo.main(["--s3"]) == 0
    assert "object 64" in capsys.readouterr().out
    content = json.loads((work / "report.json").read_text())
    assert content["good"]
    assert [row["step"] for row in content["rows"]] == list("abcde")
    assert content["rows"][2]["hit_tokens"] == {"object": 64}
    assert content["rows"][2]["blocks"] == 2
    page = (work / "report.html").read_text()
    assert "object: 64 tokens" in page
    assert "</span>object" in page
    assert "</span>disk" not in page


@pytest.mark.parametrize("doctored", ["equal", "expected"])
@pytest.mark.parametrize("step", "abcde")
@pytest.mark.usefixtures("work")
def test_of_two_engines_one_bad_row_fails_the_demo(
    step: str, doctored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(row) for row in SHARED_ROWS]
    setattr(rows["abcde".index(step)], doctored, False)
    pretend_shared(monkeypatch, *rows)
    assert demo.main(["--s3"]) == 1
    assert f"({step})" in capsys.readouterr().err


@pytest.mark.usefixtures("work")
def test_of_two_engines_a_step_that_did_not_run_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_shared(monkeypatch, *SHARED_ROWS[:-1])
    assert demo.main(["--s3"]) == 1
    assert "(e) did not run" in capsys.readouterr().err


def test_a_server_that_does_not_come_up_fails_the_demo_with_its_words(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_self: S3Server) -> None:
        raise RuntimeError("the S3 server did not come up: no room")

    monkeypatch.setattr(S3Server, "start", broken)
    monkeypatch.setattr(demo, "S3", work / "s3")
    monkeypatch.setattr(demo, "S3_LOG", work / "s3" / "server.log")
    assert demo.main(["--s3"]) == 1
    assert "no room" in capsys.readouterr().err


def test_two_engines_want_more_memory_and_say_so_before_anything_changes(
    touched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "read", lambda: replace(GOOD_HOST, memory=5 * host.GIB))
    assert main.main(["demo", "--s3"]) == 1
    assert "need 6 GiB of memory" in capsys.readouterr().err
    assert touched == []


@pytest.mark.usefixtures("work")
def test_the_demo_of_one_engine_names_the_other_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, *GOOD_ROWS)
    assert demo.main([]) == 0
    assert "./dev demo --s3" in capsys.readouterr().out


# ---- To look around ------------------------------------------------------------------------------


def test_what_is_to_look_around_is_started_with_its_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[list[str]] = []

    def shown(command: list[str], **_more: object) -> int:
        started.append([str(word) for word in command])
        return 0

    monkeypatch.setattr(setup, "require", lambda *_args, **_more: None)
    monkeypatch.setattr(build, "build", lambda *_args: None)
    monkeypatch.setattr(venv, "python", lambda: Path("python"))
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(run, "shown", shown)
    assert main.main(["demo", "--stack", "--port", "9000"]) == 0
    assert main.main(["demo", "--stack"]) == 0
    assert started[0] == ["python", "-m", "demo", "--stack", "--port", "9000"]
    assert started[1] == ["python", "-m", "demo", "--stack"]


@pytest.mark.parametrize("words", [["--port", "9000"], ["--stack", "--s3"], ["--stack", "--stay"]])
def test_what_does_not_go_together_is_refused(
    words: list[str], touched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["demo", *words])
    assert ended.value.code == 2
    assert "--stack" in capsys.readouterr().err
    assert touched == []


# ---- The report ---------------------------------------------------------------------------------


def test_the_json_has_the_promised_fields(tmp_path: Path) -> None:
    report.write(good(), tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert [row["step"] for row in content["rows"]] == list(report.STEPS)
    for row in content["rows"]:
        assert {"step", "tier", "tokens", "ttft_ms", "ratio", "equal"} <= set(row)
    own = content["rows"][1]
    assert own["ttft_ms"] == 11.0  # the median of 10, 12 and 11
    assert own["ratio"] == 1.0
    assert content["rows"][2]["ratio"] == 2.73
    assert content["rows"][0]["ratio"] == 81.82  # it ran before (b)


def test_the_engines_own_hits_were_neither_moved_nor_verified() -> None:
    rows = {row.step: row for row in good().rows}
    assert (rows["b"].blocks, rows["b"].megabytes) == (0, 0.0)
    assert (rows["c"].blocks, rows["c"].megabytes) == (3, 4.4)


def test_the_table_has_a_line_per_step() -> None:
    lines = report.table(good()).splitlines()
    assert len(lines) == 1 + len(GOOD_ROWS)
    for word in ("tokens", "from", "TTFT ms", "x (b)", "MB", "verified", "equal"):
        assert word in lines[0]
    assert "device 96" in lines[2]


class Page(HTMLParser):
    """Collects what a page refers to and whether its elements close."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.seen: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [name for name, _ in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("rows", [GOOD_ROWS, GOOD_ROWS[:2], ()])
def test_the_page_stands_alone_and_is_well_formed(rows: tuple[Row, ...], tmp_path: Path) -> None:
    report.write(made_of(*rows), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.references == []
    assert not {"script", "link", "img", "iframe"} & set(page.seen)
    assert "url(" not in text
    assert "@import" not in text


def drawings(folder: Path) -> list[ElementTree.Element]:
    text = (folder / "report.html").read_text()
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text)]


def test_the_plots_are_drawn_to_scale_inside_their_frame(tmp_path: Path) -> None:
    report.write(good(), tmp_path)
    times, sources = drawings(tmp_path)
    for drawing in (times, sources):
        _, _, width, height = (float(part) for part in drawing.get("viewBox", "").split())
        groups = drawing.findall("g")
        assert len(groups) == len(GOOD_ROWS)
        for group in groups:
            y = float(re.findall(r"\d+", group.get("transform", ""))[1])
            assert y + 22 <= height
            for bar in group.findall("rect"):
                assert float(bar.get("x", "")) + float(bar.get("width", "")) <= width
    widths = [float(group.findall("rect")[0].get("width", "")) for group in times.findall("g")]
    assert widths[0] == max(widths)
    assert widths[0] / widths[5] == pytest.approx(900.0 / 500.0, rel=0.01)
    shares = [rect.find("title") for rect in sources.findall("g")[5].findall("rect")]
    texts = [title.text for title in shares if title is not None]
    assert texts == ["disk: 32 tokens", "computed: 68 tokens"]


def test_a_bad_run_is_not_called_good_on_the_page(tmp_path: Path) -> None:
    report.write(made_of(*GOOD_ROWS[:-1]), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "Every answer equal" not in text
    assert "(f) did not run" in text
