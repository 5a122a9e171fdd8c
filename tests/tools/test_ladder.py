"""Each rule of the ladder catches its offender and lets the rightful user pass."""

from collections.abc import Callable

import pytest

from dev.check import ladder, layers
from dev.check.tree import Tree

MakeTree = Callable[[dict[str, str]], Tree]
HEADER = "// A part.\n// Threading: immutable values.\n#pragma once\n"


def rules(tree: Tree) -> list[str]:
    return [finding.rule for finding in ladder.check(tree, layers.own())]


def texts(tree: Tree) -> str:
    return "\n".join(str(finding) for finding in ladder.check(tree, layers.own()))


def test_reach_is_transitive_and_never_upward() -> None:
    reach = layers.own().reach()
    assert reach["base"] == {"base"}
    assert reach["catalog"] == {"catalog", "policy", "index", "block", "base"}
    assert "catalog" not in reach["transfer"]
    assert {"catalog", "transfer", "wire", "memory"} <= reach["tier"]
    assert "manager" not in reach["router"]
    assert "testing" not in reach["cli"]


def test_upward_include_is_caught_with_its_way_out(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/catalog/pool.cc": '#include "terrace/tier/tier.h"\n',
            "terrace/tier/tier.h": HEADER,
        }
    )
    assert rules(tree) == ["ladder"]
    assert "terrace/catalog/pool.cc:1:" in texts(tree)
    assert "declare an interface in catalog" in texts(tree)


def test_downward_include_passes(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/tier/tier.cc": '#include "terrace/catalog/pool.h"\n#include <vector>\n',
            "terrace/catalog/pool.h": HEADER,
        }
    )
    assert rules(tree) == []


def test_sideways_include_is_caught(tree_of: MakeTree) -> None:
    files = {
        "terrace/worker/worker.cc": '#include "terrace/tier/tier.h"\n',
        "terrace/tier/tier.h": HEADER,
    }
    assert rules(tree_of(files)) == ["ladder"]


def test_tests_may_see_every_room_and_code_sees_no_tests(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/base/clock_test.cc": '#include "terrace/testing/fake.h"\n',
            "terrace/base/clock.cc": '#include "terrace/testing/fake.h"\n',
            "terrace/testing/fake.h": HEADER,
        }
    )
    found = list(ladder.check(tree, layers.own()))
    assert [(finding.path, finding.rule) for finding in found] == [
        ("terrace/base/clock.cc", "ladder")
    ]


def test_fixtures_beside_the_code_are_tests(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/worker/worker_fixture.h": HEADER + "#include <gtest/gtest.h>\n",
            "terrace/worker/worker_test.cc": '#include "terrace/worker/worker_fixture.h"\n',
            "terrace/worker/worker.cc": '#include "terrace/worker/worker_fixture.h"\n',
        }
    )
    found = list(ladder.check(tree, layers.own()))
    assert [finding.path for finding in found] == ["terrace/worker/worker.cc"]


def test_unknown_room_is_caught(tree_of: MakeTree) -> None:
    files = {
        "terrace/attic/box.cc": '#include "terrace/base/clock.h"\n',
        "terrace/base/clock.h": HEADER,
    }
    assert "not in tools/layers.toml" in texts(tree_of(files))


def test_private_header_stays_in_its_folder(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/block/hash_internal.h": HEADER,
            "terrace/block/hash.cc": '#include "terrace/block/hash_internal.h"\n',
            "terrace/index/index.cc": '#include "terrace/block/hash_internal.h"\n',
        }
    )
    found = list(ladder.check(tree, layers.own()))
    assert [finding.path for finding in found] == ["terrace/index/index.cc"]


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("terrace/index/index.cc", "openssl/sha.h"),
        ("terrace/memory/region.cc", "cuda_runtime.h"),
        ("terrace/manager/manager.cc", "toml++/toml.h"),
        ("terrace/tier/disk/disk.cc", "liburing.h"),
        ("terrace/serve/serve.cc", "zmq.hpp"),
        ("terrace/base/log.cc", "spdlog/spdlog.h"),
        ("terrace/config/load.h", "toml++/toml.h"),
        ("terrace/catalog/pool.cc", "gtest/gtest.h"),
    ],
)
def test_foreign_header_out_of_place_is_caught(tree_of: MakeTree, path: str, header: str) -> None:
    assert rules(tree_of({path: f"#include <{header}>\n"})) == ["foreign"]


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("terrace/block/digest.cc", "openssl/sha.h"),
        ("terrace/memory/device/cuda/copy.cc", "cuda_runtime.h"),
        ("terrace/config/load.cc", "toml++/toml.h"),
        ("terrace/transfer/backends/uring/uring.cc", "liburing.h"),
        ("terrace/catalog/pool_test.cc", "gtest/gtest.h"),
        ("terrace/base/log.cc", "fmt/format.h"),
        ("terrace/base/thread.cc", "sys/prctl.h"),
    ],
)
def test_foreign_header_in_place_passes(tree_of: MakeTree, path: str, header: str) -> None:
    assert rules(tree_of({path: f"#include <{header}>\n"})) == []


def test_pure_rooms_have_no_locks_and_no_files(tree_of: MakeTree) -> None:
    assert rules(tree_of({"terrace/policy/lru.cc": "#include <mutex>\n"})) == ["pure"]
    assert rules(tree_of({"terrace/index/index.cc": "#include <fcntl.h>\n"})) == ["pure"]


def test_threads_only_where_they_may_live(tree_of: MakeTree) -> None:
    include = '#include "terrace/base/thread.h"\n'
    tree = tree_of(
        {
            "terrace/tier/tier.cc": include,
            "terrace/manager/manager.cc": include,
            "terrace/base/thread.h": HEADER,
        }
    )
    found = list(ladder.check(tree, layers.own()))
    assert [(finding.path, finding.rule) for finding in found] == [
        ("terrace/tier/tier.cc", "threads")
    ]


def test_hidden_header_is_found_through_another(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/block/descriptor.h": HEADER,
            "terrace/block/all.h": HEADER + '#include "terrace/block/descriptor.h"\n',
            "terrace/catalog/pool.cc": '#include "terrace/block/all.h"\n',
        }
    )
    assert rules(tree) == ["blind"]
    assert "pool.cc -> all.h -> descriptor.h" in texts(tree)


def test_form_of_includes(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/base/a.h": HEADER,
            "terrace/base/one.cc": '#include "a.h"\n',
            "terrace/base/two.cc": "#include <terrace/base/a.h>\n",
            "include/terrace/terrace.h": "/* C */\n",
            "terrace/capi/three.cc": '#include "terrace/terrace.h"\n',
            "terrace/base/four.c": '#include "a.c"\n',  # To be copied out.
        }
    )
    assert rules(tree) == ["include"] * 3


def test_a_part_is_named_by_few_files(tree_of: MakeTree) -> None:
    include = '#include "terrace/tier/disk/disk_tier.h"\n'
    files = {f"terrace/manager/user{index}.cc": include for index in range(4)}
    files["terrace/tier/disk/disk_tier.h"] = HEADER
    assert rules(tree_of(files)) == ["spread"]
    del files["terrace/manager/user3.cc"]
    assert rules(tree_of(files)) == []
