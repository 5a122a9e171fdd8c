"""./dev build, without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev import build, paths


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder of the repository `tmp_path`."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = tmp_path / "build" / "release"
    folder.mkdir(parents=True)
    (folder / "some.o").touch()
    return folder


@pytest.mark.parametrize(
    "text",
    ["", "CMAKE_HOME_DIRECTORY:INTERNAL=", "# none\nCMAKE_BUILD_TYPE:STRING=Release\n"],
    ids=["empty", "cut", "without"],
)
def test_a_cache_that_does_not_say_whose_it_is_is_left_to_cmake(built: Path, text: str) -> None:
    (built / "CMakeCache.txt").write_text(text)
    build.forget_moved(built)
    assert built.exists() == (text != "CMAKE_HOME_DIRECTORY:INTERNAL=")


def test_what_was_built_here_stays(built: Path) -> None:
    build.forget_moved(built)  # Not configured yet.
    (built / "CMakeCache.txt").write_text(f"A:B=c\nCMAKE_HOME_DIRECTORY:INTERNAL={paths.ROOT}\n")
    build.forget_moved(built)
    assert (built / "some.o").exists()


def test_what_was_built_in_another_place_is_made_anew(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (built / "CMakeCache.txt").write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/somewhere/else\n")
    build.forget_moved(built)
    assert not built.exists()
    assert "build/release was made in /somewhere/else" in "".join(capsys.readouterr())
