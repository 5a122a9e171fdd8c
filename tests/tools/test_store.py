"""A cache entry is whole or absent: damage is noticed, breaks leave nothing, the key decides."""

import fcntl
from pathlib import Path

import pytest

from dev import say, store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERRACE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Makes an entry of three files and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, part: Path, final: Path) -> None:
        self.calls += 1
        (part / "sub").mkdir()
        (part / "sub" / "a.txt").write_text("hello")
        (part / "b.bin").write_bytes(bytes(1000))
        (part / "name").write_text(str(final))


def test_second_use_makes_nothing(cache: Path) -> None:
    make = Maker()
    first = store.ensure("thing", "1", make)
    assert store.ensure("thing", "1", make) == first == cache / "thing-1"
    assert (first / "name").read_text() == str(first)
    assert make.calls == 1


def test_another_key_is_another_entry() -> None:
    make = Maker()
    assert store.ensure("thing", "1", make) != store.ensure("thing", "2", make)
    assert make.calls == 2


@pytest.mark.parametrize("harm", ["shorten", "remove", "change", "manifest"])
def test_damage_is_noticed_and_mended(harm: str) -> None:
    make = Maker()
    entry = store.ensure("thing", "1", make, hash_all=True)
    if harm == "shorten":
        (entry / "b.bin").write_bytes(bytes(999))
    elif harm == "remove":
        (entry / "sub" / "a.txt").unlink()
    elif harm == "change":
        (entry / "sub" / "a.txt").write_text("HELLO")
    else:
        (entry / store.MANIFEST).write_text("{")
    assert store.damage(entry) is not None
    assert store.ensure("thing", "1", make, hash_all=True) == entry
    assert make.calls == 2
    assert store.damage(entry) is None


def test_a_break_leaves_nothing_that_looks_whole(cache: Path) -> None:
    def fail(part: Path, _final: Path) -> None:
        (part / "a").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.ensure("thing", "1", fail)
    assert not (cache / "thing-1").exists()
    assert list(cache.glob("*.part-*")) == []


def test_remains_of_a_killed_run_are_swept(cache: Path) -> None:
    (cache / "thing-1.part-99999").mkdir(parents=True)
    (cache / "thing-0.removed-99999").mkdir()
    store.ensure("thing", "1", Maker())
    assert sorted(path.name for path in cache.iterdir()) == ["thing-1", "thing.lock"]


def test_a_held_lock_is_waited_for_up_to_a_limit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: object, _flags: int) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(store, "LOCK_WAIT_S", -1.0)
    with pytest.raises(say.Stop, match=r"another \./dev"):
        store.ensure("thing", "1", Maker())
    assert not (cache / "thing-1").exists()


def test_a_change_of_the_same_size_is_noticed_in_any_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where only a sample of the hashes is compared at every use."""
    monkeypatch.setattr(store, "HASHED_AT_MOST", 1)
    make = Maker()
    entry = store.ensure("thing", "1", make)
    for name in ("b.bin", "sub/a.txt", "name"):
        content = bytearray((entry / name).read_bytes())
        content[-1] ^= 1
        (entry / name).write_bytes(bytes(content))
        assert name in str(store.damage(entry))
        assert store.ensure("thing", "1", make) == entry
        assert store.damage(entry) is None
    assert make.calls == 4


def test_a_file_touched_but_equal_is_no_damage() -> None:
    make = Maker()
    entry = store.ensure("thing", "1", make)
    (entry / "b.bin").write_bytes(bytes(1000))
    assert store.ensure("thing", "1", make) == entry
    assert make.calls == 1


def test_an_entry_without_a_manifest_is_made_anew() -> None:
    make = Maker()
    entry = store.ensure("thing", "1", make)
    (entry / store.MANIFEST).unlink()
    store.ensure("thing", "1", make)
    assert make.calls == 2
