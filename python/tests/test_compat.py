"""What is not served is refused with one plain sentence."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from terrace.connectors.vllm import compat, contract


class FullAttentionSpec(SimpleNamespace):
    block_size = 32


class SlidingWindowSpec(SimpleNamespace):
    block_size = 32


class MambaSpec(SimpleNamespace):
    block_size = 32


def make_config() -> SimpleNamespace:
    return SimpleNamespace(
        model_config=SimpleNamespace(is_encoder_decoder=False),
        scheduler_config=SimpleNamespace(async_scheduling=False),
        device_config=SimpleNamespace(device_type="cpu"),
        parallel_config=SimpleNamespace(
            pipeline_parallel_size=1,
            nnodes=1,
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
        ),
        load_config=SimpleNamespace(load_format="auto"),
        cache_config=SimpleNamespace(calculate_kv_scales=False),
        speculative_config=None,
    )


def make_plan(*specs: Any) -> SimpleNamespace:
    groups = [SimpleNamespace(kv_cache_spec=spec, is_eagle_group=False) for spec in specs]
    return SimpleNamespace(kv_cache_groups=groups)


def setter(part: str, name: str, value: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        setattr(getattr(config, part), name, value)

    return change


def with_model(name: str) -> Callable[[Any], None]:
    return setter("model_config", "hf_config", SimpleNamespace(**{name: "maker/another"}))


def test_a_device_is_refused_before_what_a_flag_could_change() -> None:
    config = make_config()
    config.scheduler_config.async_scheduling = True
    config.device_config.device_type = "cuda"
    assert "device cuda" in compat.refusal(config, make_plan(FullAttentionSpec()))


@pytest.mark.parametrize(
    "specs",
    [
        (FullAttentionSpec(),),
        (SlidingWindowSpec(),),
        (SlidingWindowSpec(), FullAttentionSpec(), SlidingWindowSpec()),
    ],
)
def test_full_attention_and_windows_are_served(specs: tuple[Any, ...]) -> None:
    assert compat.refusal(make_config(), make_plan(*specs)) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setter("model_config", "is_encoder_decoder", True), "encoder-decoder"),
        (setter("scheduler_config", "async_scheduling", True), "asynchronous scheduling"),
        (setter("device_config", "device_type", "cuda"), "device cuda"),
        (setter("parallel_config", "pipeline_parallel_size", 2), "pipeline"),
        (setter("parallel_config", "nnodes", 2), "several nodes"),
        (setter("parallel_config", "decode_context_parallel_size", 2), "decode context"),
        (setter("load_config", "load_format", "dummy"), "load format dummy"),
        (setter("cache_config", "calculate_kv_scales", True), "KV scales"),
        (with_model("text_model_id"), "text_model_id"),
        (with_model("audio_model_id"), "audio_model_id"),
        (setter("model_config", "architecture", "MoonshotKimiaForCausalLM"), "folder below"),
    ],
)
def test_a_case_that_is_not_served_is_named(change: Callable[[Any], None], words: str) -> None:
    config = make_config()
    change(config)
    assert words in compat.refusal(config, make_plan(FullAttentionSpec()))


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ((), "no KV cache"),
        ((MambaSpec(),), "MambaSpec"),
        ((FullAttentionSpec(), MambaSpec()), "MambaSpec"),
        ((FullAttentionSpec(), SlidingWindowSpec(block_size=64)), "blocks of [32, 64] tokens"),
    ],
)
def test_groups_that_are_not_served_are_named(specs: tuple[Any, ...], words: str) -> None:
    assert words in compat.refusal(make_config(), make_plan(*specs))


@pytest.mark.parametrize(
    ("mark", "words"), [("is_eagle_group", "draft models"), ("host_resident", "host memory")]
)
def test_a_group_that_is_not_the_models_own_on_the_device_is_refused(mark: str, words: str) -> None:
    plan = make_plan(FullAttentionSpec())
    setattr(plan.kv_cache_groups[0], mark, True)
    assert words in compat.refusal(make_config(), plan)


def test_a_model_by_another_class_is_refused() -> None:
    config = make_config()
    config.model_config.model_class_overrides = {"LlamaForCausalLM": "mine:Llama"}
    assert "model_class_overrides" in compat.refusal(config, make_plan(FullAttentionSpec()))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (SimpleNamespace(module_name="vllm.model_executor.models.llama"), ""),
        (SimpleNamespace(model_cls=type("Own", (), {"__module__": "vllm.models.own"})), ""),
        (SimpleNamespace(module_name="vllm_plugin.llama"), "(vllm_plugin.llama) cannot be"),
        (SimpleNamespace(model_cls=type("Own", (), {"__module__": "mine"})), "(mine) cannot be"),
    ],
)
def test_a_model_by_a_plug_ins_code_is_refused(entry: Any, words: str) -> None:
    config = make_config()
    config.model_config.architecture = "LlamaForCausalLM"
    config.model_config.registry = SimpleNamespace(models={"LlamaForCausalLM": entry})
    found = compat.refusal(config, make_plan(FullAttentionSpec()))
    assert words in found
    assert bool(words) == bool(found)


def test_proposers_with_kv_of_their_own_are_refused() -> None:
    config = make_config()
    config.speculative_config = SimpleNamespace(method="eagle3")
    assert "eagle3" in compat.refusal(config, make_plan(FullAttentionSpec()))
    config.speculative_config = SimpleNamespace(method="ngram")
    assert compat.refusal(config, make_plan(FullAttentionSpec())) == ""


def test_old_engines_and_engines_without_a_needed_hook_are_refused() -> None:
    complete = type("Base", (), dict.fromkeys(compat._NEEDED))
    assert compat.contract_refusal(complete, "0.32.0") == ""
    assert "older" in compat.contract_refusal(complete, "0.29.1")
    assert "on_new_request" in compat.contract_refusal(object, "0.33.0")


def test_engines_that_call_otherwise_are_refused_with_each_call_and_member() -> None:
    base = type("Base", (), {"load": lambda _self, stream: stream})
    ours = type("Ours", (base,), {"load": lambda _self, context: context})
    assert compat.signature_refusal(ours, ["b", "a"], "9.9") == (
        "vLLM 9.9 calls in another way: load(_self, stream), a, b"
    )
    assert compat.signature_refusal(base, [], "9.9") == ""


def test_where_the_contract_departs_from_the_tested_one_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested = contract.kept("0.32.0")
    assert tested is not None
    found = copy.deepcopy(tested)
    monkeypatch.setattr(contract, "read_installed", lambda: found)
    assert compat.contract_report(object, "0.32.1")[-1].endswith("contract equals the tested one")
    found["KVConnectorBase_V1"]["start_load_kv"] = "(self, tomorrow)"
    told = compat.contract_report(object, "0.32.1")[-1]
    assert "1 differences from the tested contract" in told
    assert "KVConnectorBase_V1.start_load_kv: " in told
    assert told.endswith(" -> (self, tomorrow)")


def test_a_version_that_nobody_tested_is_said_to_be_so() -> None:
    lines = compat.contract_report(object, "9.99.0")
    assert "not a tested version" in lines[-1]


def test_hashes_within_a_block_are_counted_where_the_engine_makes_them() -> None:
    def config(unit: int | None) -> Any:
        return SimpleNamespace(cache_config=SimpleNamespace(prefix_match_unit=unit))

    def plan(tokens: int | None, groups: int) -> Any:
        return SimpleNamespace(hash_block_size=tokens, kv_cache_groups=[None] * groups)

    assert compat.hash_tokens(config(None), plan(None, 6), 64) == 64
    assert compat.hash_tokens(config(None), plan(32, 6), 64) == 32
    assert compat.hash_tokens(config(32), plan(None, 6), 64) == 32
    assert compat.hash_tokens(config(32), plan(None, 1), 64) == 64, "of one group it counts nothing"


def test_items_are_seen_unless_another_engine_encodes_them() -> None:
    config = make_config()
    assert compat.sees_items(config)
    config.ec_transfer_config = object()
    assert not compat.sees_items(config)


@pytest.mark.parametrize("policy", ["fail", "recompute"])
def test_the_engines_failure_policy_counts_whatever_a_childs_copy_says(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configured(found: str) -> SimpleNamespace:
        return SimpleNamespace(kv_transfer_config=SimpleNamespace(kv_load_failure_policy=found))

    module: Any = ModuleType("vllm.config")
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.config", module)
    child = configured("recompute" if policy == "fail" else "fail")
    module.get_current_vllm_config_or_none = lambda: configured(policy)
    assert compat.failure_policy(child) == policy
    module.get_current_vllm_config_or_none = lambda: None
    assert compat.failure_policy(child) != policy


def a_named_model(**load: Any) -> SimpleNamespace:
    model = SimpleNamespace(model="maker/model", model_weights="", revision="main")
    return SimpleNamespace(model_config=model, load_config=SimpleNamespace(**load))


@pytest.mark.parametrize("folder", [None, "/big/disk"])
def test_a_named_model_is_looked_for_where_the_engine_keeps_it(
    monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **how: Any) -> str:
        asked.append({"name": name, **how})
        return "/found"

    hub = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert compat.model_directory(a_named_model(download_dir=folder)) == "/found"
    how = {"revision": "main", "cache_dir": folder, "local_files_only": True}
    assert asked == [{"name": "maker/model", **how}]


def test_a_model_from_elsewhere_is_not_taken_for_one_of_that_name_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = SimpleNamespace(snapshot_download=lambda _name, **_how: "/another")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setenv("VLLM_USE_MODELSCOPE", "True")
    assert compat.model_directory(a_named_model(download_dir=None)) == ""


def test_that_items_may_come_without_content_is_seen_unless_it_was_asked_for() -> None:
    config = make_config()
    assert not compat.accepts_bare_items(config)
    config.model_config.multimodal_config = SimpleNamespace(allow_missing_mm_embeddings=True)
    assert compat.accepts_bare_items(config)
    config.ec_transfer_config = SimpleNamespace(is_ec_consumer=True)
    assert not compat.accepts_bare_items(config)
