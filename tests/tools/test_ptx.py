"""The committed PTX is told from one of other sources, without a CUDA compiler."""

from pathlib import Path

from dev import ptx
from dev.check.tree import Tree


def tree(root: Path, first_line: str) -> Tree:
    for path in (*ptx.SOURCES, ptx.PTX):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{path}\n")
    (root / ptx.PTX).write_text(f"{first_line}\n.version 6.3\n")
    return Tree(root, (*ptx.SOURCES, ptx.PTX))


def current(root: Path) -> str:
    digest = ptx.digest(lambda path: (root / path).read_text())
    return f"// sources sha256 {digest}; ./dev ptx"


def test_ptx_of_these_sources_is_fine(tmp_path: Path) -> None:
    tree(tmp_path, "")
    assert not list(ptx.check(tree(tmp_path, current(tmp_path))))


def test_a_change_of_any_source_makes_it_stale(tmp_path: Path) -> None:
    tree(tmp_path, "")
    first_line = current(tmp_path)
    for path in ptx.SOURCES:
        changed = tree(tmp_path, first_line)
        (tmp_path / path).write_text("changed\n")
        assert len(list(ptx.check(changed))) == 1, path


def test_ptx_without_its_hash_or_none_at_all_is_stale(tmp_path: Path) -> None:
    assert len(list(ptx.check(tree(tmp_path, "// by hand")))) == 1
    assert len(list(ptx.check(Tree(tmp_path, ptx.SOURCES)))) == 1
