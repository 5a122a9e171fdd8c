"""Each house rule catches a small offender; what looks alike and is right passes."""

from collections.abc import Callable

import pytest

from dev.check import layers, links, shape, sources, words
from dev.check.tree import Tree

MakeTree = Callable[[dict[str, str]], Tree]
OPENING = "// A part.\n// Threading: thread-compatible.\n#pragma once\n"


def rules_of_sources(tree: Tree) -> list[str]:
    return [finding.rule for finding in sources.check(tree, layers.own())]


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("time", "auto t = std::chrono::steady_clock::now();"),
        ("time", "auto t = time(nullptr);"),
        ("random", "std::mt19937 random(7);"),
        ("random", "int r = rand();"),
        ("environment", 'auto* home = std::getenv("HOME");'),
        ("locks", "std::mutex mutex_;"),
        ("locks", "const std::scoped_lock lock(mutex_);"),
        ("threads", "std::jthread thread([] {});"),
        ("threads", "thread.detach();"),
        ("sleep", "std::this_thread::sleep_for(one_second);"),
        ("print", 'std::cerr << "hello";'),
        ("print", 'fprintf(stderr, "hello");'),
        ("wait", "condition_.wait(lock);"),
        ("wait", "condition_.wait(lock, [&] { return done_; });"),
        ("wait", "generation_.wait(old);"),
        ("wait", "io_uring_wait_cqe(&ring, &entry);"),
        ("wait", "poll(fds, 2, -1);"),
    ],
)
def test_offending_line_is_caught(tree_of: MakeTree, rule: str, code: str) -> None:
    tree = tree_of({"terrace/manager/part.cc": f"void run() {{\n  {code}\n}}\n"})
    found = list(sources.check(tree, layers.own()))
    assert [finding.rule for finding in found] == [rule]
    assert found[0].line == 2


@pytest.mark.parametrize(
    "code",
    [
        "// steady_clock, rand() and getenv stand in a comment",
        'log("std::mutex and sleep_for stand in a text");',
        "const Nanoseconds now = clock.now();",
        "completion.wait(deadline);",
        "driver.wait(is_opening ? kOpeningNap : kIdleNap);",
        "inner_->wait(seconds(1));",
        "condition_.wait_for(mutex, limit);",
        "poll(fds, 2, timeout_ms);",
        "const auto operand = tree.brand(1);",
        "entry.lifetime(now);",
        "Runtime(0);",
    ],
)
def test_harmless_line_passes(tree_of: MakeTree, code: str) -> None:
    tree = tree_of({"terrace/manager/part.cc": f"void run() {{\n  {code}\n}}\n"})
    assert rules_of_sources(tree) == []


def test_tests_may_lock_but_not_sleep(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "terrace/index/index_test.cc": "std::mutex mutex;\n",
            "terrace/index/other_test.cc": "usleep(10);\n",
        }
    )
    assert rules_of_sources(tree) == ["sleep"]


def test_preprocessor_in_headers(tree_of: MakeTree) -> None:
    text = OPENING + "#if defined(__AVX512F__)\n#endif\n"
    tree = tree_of(
        {
            "terrace/base/mutex2.h": text,
            "terrace/memory/device/cpu/copy.h": text,
            "terrace/transfer/backends/uring/ring.h": text,
            "terrace/tier/tier.h": text,
            "terrace/tier/tier.cc": "#if 1\n#endif\n",
        }
    )
    found = list(sources.check(tree, layers.own()))
    assert [(finding.path, finding.rule) for finding in found] == [
        ("terrace/tier/tier.h", "preprocessor")
    ]


def test_unfinished_marks(tree_of: MakeTree) -> None:
    mark = "TO" + "DO"
    tree = tree_of({"terrace/base/a.cc": f"// {mark}: later\n", "python/b.py": f"# {mark}\n"})
    assert rules_of_sources(tree) == ["marks", "marks"]


@pytest.mark.parametrize(
    "identifier",
    ["chunk", "chunk_count", "kChunkBytes", "g2_pool", "commit", "is_committed", "ReplicaSet"]
    + ["swap_out", "Swapped", "retrieve_blocks", "retrieving", "G3Tier", "num_chunks"],
)
def test_forbidden_word_is_caught(tree_of: MakeTree, identifier: str) -> None:
    tree = tree_of({"terrace/base/a.cc": f"int {identifier} = 0;\n"})
    found = list(words.check(tree, layers.own()))
    assert [finding.rule for finding in found] == ["words"]
    assert identifier in found[0].text
    tree = tree_of({"python/a.py": f"{identifier} = 0\n"})
    assert [finding.rule for finding in words.check(tree, layers.own())] == ["words"]


@pytest.mark.parametrize(
    "code",
    [
        "std::swap(a, b);",
        "std::swap_ranges(a, b, c);",
        "list.swap(other);",
        'log("a chunk");  // commit the replica',
        "auto x = __builtin_bswap64(y);",
        "Committee g12;",
    ],
)
def test_rightful_word_passes(tree_of: MakeTree, code: str) -> None:
    tree = tree_of({"terrace/base/a.cc": f"{code}\n"})
    assert list(words.check(tree, layers.own())) == []


@pytest.mark.parametrize("name", ["util.h", "block_utils.cc", "test_helpers.py", "common/a.cc"])
def test_names_that_say_nothing(tree_of: MakeTree, name: str) -> None:
    tree = tree_of({f"terrace/base/{name}": ""})
    assert "names" in [finding.rule for finding in words.check(tree, layers.own())]


def rules_of_shape(tree: Tree) -> list[str]:
    return [finding.rule for finding in shape.check(tree, layers.own())]


def cpp_function(lines: int) -> str:
    return "int count(int x) {\n" + "  x += 1;\n" * (lines - 3) + "  return x;\n}\n"


def test_long_function_is_caught_and_the_limit_passes(tree_of: MakeTree) -> None:
    limit = int(layers.own().table["size"]["function_lines"])
    tree = tree_of({"tests/a.cc": cpp_function(limit), "tests/b.cc": cpp_function(limit + 1)})
    found = list(shape.check(tree, layers.own()))
    assert [(finding.path, finding.rule) for finding in found] == [("tests/b.cc", "function-lines")]
    assert "count has 71 lines" in found[0].text
    body = "def count(x):\n" + "    x += 1\n" * limit
    assert rules_of_shape(tree_of({"python/a.py": body})) == ["function-lines"]


def test_lines_of_neighbours_do_not_add_up(tree_of: MakeTree) -> None:
    part = cpp_function(40)
    text = (
        "namespace terrace {\nnamespace {\n"
        + part
        + "struct Box {\n  Box() : a_{1}, b_(2) {}\n"
        + part
        + "  int a_{0};\n};\n}  // namespace\n"
        + "TEST(BoxTest, CountsTo) {\n"
        + "  const char* text = \"{{{\";\n  const auto run = [&] { return '{'; };\n"
        + "}\n"
        + part
        + "}\n"
    )
    assert rules_of_shape(tree_of({"tests/a.cc": text})) == []


def test_long_file_is_caught(tree_of: MakeTree) -> None:
    assert rules_of_shape(tree_of({"tests/a.cc": "int x;\n" * 501})) == ["file-lines"]
    assert rules_of_shape(tree_of({"tests/a.cc": "int x;\n" * 500})) == []


def test_folder_needs_readme_and_cmake(tree_of: MakeTree) -> None:
    tree = tree_of({"terrace/tier/disk/disk.cc": ""})
    found = [str(finding) for finding in shape.check(tree, layers.own())]
    assert len(found) == 3
    assert any("terrace/tier:" in text and "README.md" in text for text in found)
    assert any("terrace/tier/disk:" in text and "CMakeLists.txt" in text for text in found)


def test_header_opens_with_purpose_and_threading(tree_of: MakeTree) -> None:
    around = {"terrace/base/README.md": "", "terrace/base/CMakeLists.txt": ""}
    assert rules_of_shape(tree_of({**around, "terrace/base/a.h": OPENING})) == []
    for text in ("#pragma once\n", "// A part.\n#pragma once\n", "// Threading: none\n"):
        assert rules_of_shape(tree_of({**around, "terrace/base/a.h": text})) == ["header"]


def test_links(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "README.md": "# Top\n## The two commands\n[a](docs/a.md) [b](#the-two-commands)\n"
            "[web](https://example.org) `./dev test`\n```\n[not](a-link.md)\n```\n",
            "docs/a.md": "# A\n[up](../README.md#the-two-commands) [gone](b.md)\n"
            "[wrong](../README.md#nowhere)\nRun ./dev fly now.\n",
        }
    )
    found = list(links.check(tree, ("test",)))
    assert [(finding.path, finding.line) for finding in found] == [
        ("docs/a.md", 2),
        ("docs/a.md", 3),
        ("docs/a.md", 4),
    ]


def test_documents_that_code_names_are_there(tree_of: MakeTree) -> None:
    tree = tree_of(
        {
            "docs/frame.md": "# Frames\n",
            "terrace/base/a.h": "// Source: docs/frame.md, frame.md.\n// Source: plan.md.\n",
            "python/a.py": '"""As ../notes/gone.md says."""\n',
        }
    )
    assert [(finding.path, finding.line) for finding in links.check(tree, ())] == [
        ("terrace/base/a.h", 2),
        ("python/a.py", 1),
    ]


def test_paths_in_code_are_there(tree_of: MakeTree) -> None:
    page = (
        "`terrace/base/a.{h,cc}` `terrace/base/` `terrace/*/a.h` `b/c.h` `terrace/base/<name>.h`\n"
        "`python/x` is of others; below this folder: `base/a.h`\n"
        "`terrace/base/gone.h`\n"
        "`terrace/base/a.{h,md}`\n"
    )
    tree = tree_of({"terrace/base/a.h": "", "terrace/base/a.cc": "", "terrace/README.md": page})
    found = list(links.check(tree, ()))
    assert [(finding.line, finding.text.split("`")[1]) for finding in found] == [
        (3, "terrace/base/gone.h"),
        (4, "terrace/base/a.md"),
    ]
