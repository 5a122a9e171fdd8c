"""A model that sees pictures: blocks are found by tokens and pictures, as the engine's own are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.vllm import harness
from tests.integration.vllm.scenarios.picture import ASKED, PICTURE, PLACES

WHOLE = 192  # Of 207 tokens, in whole blocks.
# The last one changes the model's folder.
AFTER = ("restarted", "renamed", "numbered", "crossed", "changed")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    work: Path = tmp_path_factory.mktemp("pictures")
    model, disk = str(work / "seeing"), work / "disk"
    disk.mkdir()
    made = {"folder": model, "tokenizer": harness.model("float32")}
    parts = {
        "model": ("picture.write", made),
        "reference": ("picture.reference", {"model": model}),
    }
    answer: dict[str, Any] = harness.run_several(work, parts)
    same: dict[str, Any] = {"model": model}
    same["settings"] = {"disk.size": "256MiB", "disk.paths": [str(disk)]}
    answer["stored"] = harness.run(work, "picture.store", **same, ends_by_kill=True)
    after = {name: (f"picture.{name}", same) for name in AFTER}
    return answer | dict(harness.run_several(work, after))


def same_output(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["tokens"] == other["tokens"] and one["logprobs"] == other["logprobs"])


def test_the_prompts_differ_in_nothing_but_their_pictures(found: dict[str, Any]) -> None:
    one, other = found["reference"]["A"], found["reference"]["B"]
    assert one["prompt"] == other["prompt"]
    assert one["prompt"].count(PICTURE) == PLACES
    assert one["tokens"] != other["tokens"]


def test_equal_tokens_with_another_picture_share_only_what_lies_before_it(
    found: dict[str, Any],
) -> None:
    answers = found["stored"]["answers"]
    hits = {name: answer["hit"] for name, answer in answers.items()}
    assert (hits["A"], hits["B"]) == (0, 32)
    assert (hits["A again"], hits["B again"]) == (WHOLE, WHOLE)
    assert hits["A elsewhere"] == 0
    assert (hits["A and B"], hits["B and A"]) == (96, 96)


@pytest.mark.parametrize("name", ASKED)
def test_a_hit_in_host_is_the_engines_own_hit_bit_by_bit(found: dict[str, Any], name: str) -> None:
    own, ours = found["reference"][name], found["stored"]["answers"][name]
    assert ours["cached"] == ours["hit"] == own["cached"]
    assert same_output(ours, own)


def test_blocks_after_onboard_equal_those_before_offload(found: dict[str, Any]) -> None:
    digests = found["stored"]["bytes"]
    assert len(digests["A"]) == WHOLE // 32
    assert digests["A again"] == digests["A"]
    assert digests["B again"] == digests["B"]
    assert digests["A"][0] == digests["B"][0]
    assert not set(digests["A"][1:]) & set(digests["B"][1:])


def test_after_a_kill_the_next_engine_hits_on_disk(found: dict[str, Any]) -> None:
    answers = found["restarted"]["answers"]
    for name in ("A", "B", "A and B"):
        own = found["reference"][name if f"{name} again" not in ASKED else f"{name} again"]
        assert answers[name]["cached"] == answers[name]["hit"] == own["cached"]
        assert same_output(answers[name], own)


def test_the_same_picture_prepared_in_another_way_does_not_hit(found: dict[str, Any]) -> None:
    changed = found["changed"]
    assert (changed["cached"], changed["hit"]) == (0, 0)
    assert changed["ledger"]["first_miss"] in ("never_stored", "other_namespace")
    assert changed["logprobs"] != found["reference"]["A"]["logprobs"]


def test_a_picture_is_found_by_what_it_shows_under_any_name(found: dict[str, Any]) -> None:
    answers = found["stored"]["answers"]
    for name in ("A named", "A sized"):
        assert answers[name]["hit"] == WHOLE
        assert same_output(answers[name], found["reference"]["A again"])


def test_a_name_that_means_another_picture_after_a_restart_gets_that_ones_blocks(
    found: dict[str, Any],
) -> None:
    answers = found["renamed"]["answers"]
    for name in ("B named", "B sized"):
        assert answers[name]["hit"] == WHOLE
        assert same_output(answers[name], found["reference"]["B again"])


def test_a_name_that_has_meant_two_pictures_is_not_cached(found: dict[str, Any]) -> None:
    answers = found["renamed"]["answers"]
    assert answers["A named"]["hit"] == 0
    assert answers["A named"]["ledger"]["first_miss"] == "unkeyable"
    assert found["renamed"]["unkeyable"] == {
        "multimodal items whose name has meant another item": 1
    }
    assert answers["A"]["hit"] == WHOLE
    assert same_output(answers["A"], found["reference"]["A again"])


def test_what_was_computed_of_another_picture_of_the_same_name_is_not_stored(
    found: dict[str, Any],
) -> None:
    crossed = found["crossed"]
    # The engine itself shows the model what its encoder knows by that name.
    assert crossed["first"]["tokens"] != found["reference"]["C"]["tokens"]
    assert crossed["later"]["hit"] == 32
    assert crossed["later"]["tokens"] == found["reference"]["C"]["tokens"]


def test_pictures_that_the_engine_numbers_are_found_as_well(found: dict[str, Any]) -> None:
    for answer in found["numbered"]["answers"]:
        assert answer["hit"] == WHOLE
        assert same_output(answer, found["reference"]["A again"])
    assert found["numbered"]["unkeyable"] == {}


def test_every_request_with_pictures_had_a_key(found: dict[str, Any]) -> None:
    assert found["stored"]["unkeyable"] == {}
    for run in ("stored", "restarted"):
        assert found[run]["status"]["health"] == "green"
