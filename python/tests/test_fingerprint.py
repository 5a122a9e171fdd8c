"""Fields that change the KV change the fingerprint; those that do not, do not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terrace.connectors.vllm import fingerprint


class HfConfig:
    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self.fields)


def make_config() -> SimpleNamespace:
    hf = HfConfig(
        hidden_size=576,
        _name_or_path="/models/a",
        transformers_version="5",
        rope_parameters={"rope_type": "default", "rope_theta": 10000},
    )
    model = SimpleNamespace(
        model="/models/a",
        hf_config=hf,
        dtype="torch.float32",
        quantization=None,
        max_model_len=8192,
        mm_processor_kwargs=None,
        get_sliding_window=lambda: None,
        trust_remote_code=False,
        using_transformers_backend=lambda: False,
    )
    cache = SimpleNamespace(cache_dtype="auto", kv_cache_dtype_skip_layers=[])
    parallel = SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1)
    return SimpleNamespace(
        model_config=model,
        cache_config=cache,
        parallel_config=parallel,
        device_config=SimpleNamespace(device_type="cpu"),
        speculative_config=None,
    )


def make_plan() -> SimpleNamespace:
    spec = SimpleNamespace(block_size=32)
    group = SimpleNamespace(layer_names=["layer.0"], kv_cache_spec=spec)
    return SimpleNamespace(kv_cache_groups=[group], kv_cache_layout="LBHNC")


def text(
    config: Any,
    plan: Any | None = None,
    version: str = "0.32.0",
    isa: str = "vec",
    directory: str = "/models/a",
    variables: dict[str, str] | None = None,
) -> str:
    return fingerprint.text(
        fingerprint.content_fields(config, version, directory, variables or {}),
        fingerprint.layout_fields(config, plan or make_plan(), isa),
    )


def set_hf(name: str, value: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config.model_config.hf_config.fields[name] = value

    return change


def set_part(part: str, name: str, value: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        setattr(getattr(config, part), name, value)

    return change


def with_drafts(config: Any) -> None:
    config.speculative_config = SimpleNamespace(method="ngram")


@pytest.mark.parametrize(
    "change",
    [
        set_hf("hidden_size", 640),
        set_hf("rope_parameters", {"rope_type": "default", "rope_theta": 20000}),
        set_hf("rope_parameters", {"rope_type": "yarn", "factor": 4.0}),
        set_part("model_config", "dtype", "torch.bfloat16"),
        set_part("model_config", "quantization", "fp8"),
        set_part("model_config", "quantization_config", {"linear": {"weight": "int8"}}),
        set_part("model_config", "get_sliding_window", lambda: 512),
        set_part("model_config", "mm_processor_kwargs", {"size": 64}),
        set_part("cache_config", "cache_dtype", "fp8"),
        set_part("cache_config", "kv_cache_dtype_skip_layers", ["0"]),
        set_part("parallel_config", "tensor_parallel_size", 2),
        set_part("parallel_config", "pipeline_parallel_size", 2),
        set_part("device_config", "device_type", "cuda"),
        with_drafts,
    ],
)
def test_a_change_of_the_kv_changes_the_text(change: Callable[[Any], None]) -> None:
    config = make_config()
    before = text(config)
    change(config)
    assert text(config) != before


@pytest.mark.parametrize(
    "change",
    [
        set_hf("_name_or_path", "/elsewhere"),
        set_hf("transformers_version", "6"),
        set_part("model_config", "model", "/elsewhere"),
        set_part("model_config", "max_model_len", 4096),
    ],
)
def test_what_leaves_the_kv_alone_leaves_the_text_alone(change: Callable[[Any], None]) -> None:
    config = make_config()
    before = text(config)
    change(config)
    assert text(config) == before


def test_the_engines_environment_is_part_of_the_content() -> None:
    config = make_config()
    with_own = text(config, variables={"environment.VLLM_CPU_INT4_W4A8": "0"})
    assert "content.environment.VLLM_CPU_INT4_W4A8=0\n" in with_own
    assert text(config, variables={}) != with_own


def test_what_the_engine_makes_of_adapters_is_said_where_it_takes_them() -> None:
    config = make_config()
    assert fingerprint.adapter_settings(config) == ""
    config.lora_config = SimpleNamespace(lora_dtype="torch.float32", target_modules=None)
    before = fingerprint.adapter_settings(config)
    config.lora_config.target_modules = ["v_proj"]
    some = fingerprint.adapter_settings(config)
    config.lora_config.lora_dtype = "torch.bfloat16"
    assert len({before, some, fingerprint.adapter_settings(config)}) == 3


def test_the_length_limit_counts_where_the_rotary_embedding_depends_on_it() -> None:
    config = make_config()
    set_hf("rope_parameters", {"rope_type": "longrope"})(config)
    before = text(config)
    config.model_config.max_model_len = 4096
    assert text(config) != before


def test_minor_versions_and_packing_differ_patch_releases_do_not() -> None:
    config = make_config()
    assert text(config, version="0.32.0") == text(config, version="0.32.1")
    assert text(config, version="0.32.0") != text(config, version="0.31.0")
    assert text(config, isa="vec") != text(config, isa="amx")


def test_what_prepares_the_items_counts_where_there_are_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_config(), str(tmp_path)
    file = tmp_path / "preprocessor_config.json"

    # Under either name, of pictures or of videos: processors read all of them.
    others = ("processor_config.json", "video_preprocessor_config.json")

    def changes() -> list[bool]:
        found = []
        for name in others:
            before = text(config, directory=folder)
            (tmp_path / name).write_text("{}")
            found.append(text(config, directory=folder) != before)
            (tmp_path / name).unlink()
        before = text(config, directory=folder)
        file.write_text('{"do_rescale": false}')
        found.append(text(config, directory=folder) != before)
        before = text(config, directory=folder)
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda _name: "another")
            found.append(text(config, directory=folder) != before)
        file.unlink()
        return found

    assert changes() == [False] * 4
    config.model_config.multimodal_config = object()
    assert changes() == [True] * 4


def test_what_the_encoder_is_told_counts_where_there_are_items() -> None:
    config = make_config()
    config.model_config.multimodal_config = settings = SimpleNamespace(video_pruning_rate=None)
    before = text(config)
    settings.video_pruning_rate = 0.5
    pruned = text(config)
    settings.mm_encoder_attn_dtype = "fp8"
    assert len({before, pruned, text(config)}) == 3


def test_code_from_outside_the_engine_counts_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = make_config(), str(tmp_path)
    model, file = config.model_config, tmp_path / "parts" / "modeling_own.py"
    file.parent.mkdir()

    def changes() -> list[bool]:
        found = []
        file.write_text("SCALE = 1\n")
        before = text(config, directory=folder)
        file.write_text("SCALE = 2\n")
        found.append(text(config, directory=folder) != before)
        before = text(config, directory=folder)
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", lambda _name: "another")
            found.append(text(config, directory=folder) != before)
        return found

    assert changes() == [False, False]
    model.using_transformers_backend = lambda: True
    assert changes() == [False, True]
    model.trust_remote_code = True
    assert changes() == [True, True]
    model.hf_config.fields["auto_map"] = {"AutoModel": "modeling_own.Own"}
    assert changes() == [True, True]
    model.hf_config.auto_map = {"AutoModel": "someone/else--modeling_own.Own"}
    with pytest.raises(FileNotFoundError, match="lies in another repository"):
        text(config, directory=folder)


def _with_block_size(plan: Any) -> None:
    plan.kv_cache_groups[0].kv_cache_spec.block_size = 64


def _with_heads(plan: Any) -> None:
    plan.kv_cache_groups[0].kv_cache_spec.num_kv_heads = 4


def _with_layer(plan: Any) -> None:
    plan.kv_cache_groups[0].layer_names.append("layer.1")


def _with_group(plan: Any) -> None:
    plan.kv_cache_groups.append(plan.kv_cache_groups[0])


def _with_order(plan: Any) -> None:
    plan.kv_cache_layout = "BLHNC"


@pytest.mark.parametrize(
    "change", [_with_block_size, _with_heads, _with_layer, _with_group, _with_order]
)
def test_layout_fields_follow_the_engines_plan(change: Callable[[Any], None]) -> None:
    other = make_plan()
    change(other)
    assert text(make_config()) != text(make_config(), other)


def test_each_field_is_one_line_of_printable_ascii() -> None:
    shown = fingerprint.text({"a=b": "x\ny\\zé"}, {})
    assert shown == "content.a\\x3db=x\\x0ay\\\\z\\xc3\\xa9\n"


def test_order_of_members_does_not_matter() -> None:
    assert fingerprint.canonical({"b": 1, "a": [2]}) == fingerprint.canonical({"a": [2], "b": 1})
