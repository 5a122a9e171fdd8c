"""What is drawn in docs/results is drawn of what is kept there."""

from __future__ import annotations

import pytest

from dev import plots


def test_each_plot_is_that_of_the_figures_beside_it() -> None:
    assert plots.main(["--check"]) == 0


def test_a_figure_that_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = plots.rows

    def slower(name: str) -> list[plots.Line]:
        lines = rows(name)
        lines[0]["ratio"] *= 2
        return lines

    monkeypatch.setattr(plots, "rows", slower)
    assert plots.main(["--check"]) == 1


def test_a_plot_holds_no_script_and_no_day() -> None:
    for text in plots.files().values():
        assert "<script" not in text
        assert "<!--" not in text
