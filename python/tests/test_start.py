"""A start goes on without Terrace whatever fails, unless a setting is wrong."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terrace._native import Code, Layout, Owner, TerraceError
from terrace.connectors.vllm import compat
from terrace.connectors.vllm.compat import is_wrong_setting
from terrace.connectors.vllm.log import LOGGER
from tests.conftest import BASE
from tests.engine_objects import SETTINGS, Base


def refuse(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception) -> None:
    def raising(*_args: Any) -> Any:
        raise error

    monkeypatch.setattr(module.TerraceConnector, name, raising)


def refusal(code: Code, text: str) -> TerraceError:
    return TerraceError("terrace_open", code, text)


WRONG_SETTING = refusal(Code.INVALID, "host.size: 3 bananas is no size")
TOO_LARGE = refusal(Code.INVALID, "layout: a shard of group 0 is larger than 1 GiB")


def test_a_wrong_setting_stops_the_start_and_is_named(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, connector, "_open_scheduler", WRONG_SETTING)
    with pytest.raises(ValueError, match=r"terrace: host\.size: 3 bananas"):
        connector.TerraceConnector(None, 1, None)


@pytest.mark.parametrize("role", [1, 2])
def test_the_engine_may_drop_what_is_not_stored_yet(
    connector: Any, monkeypatch: pytest.MonkeyPatch, role: int
) -> None:
    refuse(monkeypatch, connector, "_open_scheduler", RuntimeError("odd"))
    made = connector.TerraceConnector(None, role, None)
    assert made.requires_kv_delivery is False, "vLLM's default for whoever produces is True"


@pytest.mark.parametrize("is_so", [True, False])
def test_that_any_client_may_send_items_without_content_is_said(
    connector: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_so: bool
) -> None:
    refuse(monkeypatch, connector, "_open_scheduler", RuntimeError("odd"))
    monkeypatch.setattr(connector.compat, "accepts_bare_items", lambda _config: is_so)
    connector.TerraceConnector(None, 1, None)
    assert ("kv_role 'kv_both' makes this vLLM accept" in caplog.text) == is_so


@pytest.mark.parametrize("answer", [None, {"terrace": {"ledger": {}}}])
def test_a_request_that_ended_gives_its_blocks_back_at_once(
    connector: Any, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    refuse(monkeypatch, connector, "_open_scheduler", RuntimeError("odd"))
    made = connector.TerraceConnector(None, 1, None)
    made._scheduler = SimpleNamespace(
        end=lambda _request: answer, stats=SimpleNamespace(note=lambda: None)
    )
    request = SimpleNamespace(request_id="a")
    assert made.request_finished_all_groups(request, ([1],)) == (False, answer)
    assert made.request_finished(request, [1]) == (False, answer)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"1GiB"])
def test_a_setting_that_is_no_json_stops_the_start_and_is_named(
    connector: Any, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.setitem(SETTINGS, "host.size", value)
    monkeypatch.setattr(connector.compat, "has_kv_events", lambda _config: False)
    monkeypatch.setattr(
        connector.TerraceConnector, "_open_scheduler", lambda made: made._settings_json()
    )
    with pytest.raises(ValueError, match=r"terrace: setting host\.size \(engine JSON\)"):
        connector.TerraceConnector(None, 1, None)


def test_a_path_may_stand_among_the_settings(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "disk.paths", [Path("/a"), "/b"])
    monkeypatch.setattr(connector.compat, "has_kv_events", lambda _config: False)
    refuse(monkeypatch, connector, "_open_scheduler", RuntimeError("odd"))
    made = connector.TerraceConnector(None, 1, None)
    assert made._settings_json() == '{"disk.paths": ["/a", "/b"]}'


@pytest.mark.parametrize(
    "error", [TOO_LARGE, refusal(Code.EXHAUSTED, "no memory"), RuntimeError("odd")]
)
def test_whatever_else_an_owner_is_refused_for_only_stops_terrace(
    error: Exception, connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, connector, "_open_scheduler", error)
    made = connector.TerraceConnector(None, 1, None)
    request = SimpleNamespace(request_id="a")
    assert made.get_num_new_matched_tokens(request, 0) == (0, False)


@pytest.mark.parametrize("error", [TOO_LARGE, WRONG_SETTING, RuntimeError("odd")])
def test_whatever_a_worker_is_refused_for_only_stops_terrace(
    error: Exception, connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, connector, "_open_worker", error)
    made = connector.TerraceConnector(None, 2, None)
    made.register_kv_caches({})
    (told,) = made.build_connector_worker_meta().fallen
    assert str(error) in told


def test_who_asks_for_a_ledger_hears_why_there_is_none(
    connector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "pipeline parallelism is not served yet"
    monkeypatch.setattr(connector.TerraceConnector, "_refused", lambda _self: why)
    made = connector.TerraceConnector(None, 1, None)
    asked = SimpleNamespace(request_id="a", kv_transfer_params={"terrace": {"ledger": True}})
    silent = SimpleNamespace(request_id="b", kv_transfer_params=None)
    found = {"ledger": None, "health": "red", "problem": why}
    assert made.request_finished_all_groups(asked, ([],)) == (False, {"terrace": found})
    assert made.request_finished_all_groups(silent, ([],)) == (False, None)


def test_a_second_engine_of_the_process_ends_the_work_for_the_first_ones_memory(
    connector: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    half = SimpleNamespace(
        before_step=lambda _orders: calls.append("before_step"),
        save=lambda _orders: calls.append("save"),
        load=lambda _orders, _blocks: calls.append("load"),
        close=lambda: calls.append("close"),
    )
    monkeypatch.setattr(connector.TerraceConnector, "_open_worker", lambda *_args: half)
    made = connector.TerraceConnector(None, 2, None)
    made.register_kv_caches({})
    made.register_kv_caches({})
    made._connector_metadata = connector.TerraceMetadata(connector.Step(b"orders", (7,)))
    made.handle_preemptions(made._connector_metadata)
    made.start_load_kv(None)
    made.wait_for_save()
    assert made.get_block_ids_with_load_errors() == {7}
    (told,) = made.build_connector_worker_meta().fallen
    assert "second engine in this process" in told
    assert caplog.text.count("second engine in this process") == 1
    assert not calls
    made.shutdown()
    assert calls == ["close"]


def test_a_hook_that_fails_in_each_step_is_told_once(
    connector: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = connector.TerraceConnector(None, 2, None)
    for _ in range(3):
        assert made.request_finished_all_groups(object(), ()) == (False, None)
    (told,) = made.build_connector_worker_meta().fallen
    assert told.startswith("request_finished_all_groups: AttributeError")
    assert caplog.text.count("stands aside") == 1


@pytest.mark.parametrize(
    ("layout", "settings", "is_setting"),
    [
        (Layout(32, 1, ((1 << 40,),)), '{"host.size": "1GiB"}', False),
        (Layout(32, 1, ((4096,),)), '{"host.size": "3 bananas"}', True),
    ],
)
def test_the_library_tells_layouts_and_settings_apart(
    layout: Layout, settings: str, is_setting: bool
) -> None:
    with pytest.raises(TerraceError) as caught:
        Owner(
            layout,
            engine_id="an engine",
            settings_json=settings,
            fingerprint="",
            model_directory="",
            can_store=True,
            can_load=True,
        )
    assert caught.value.code == Code.INVALID
    assert is_wrong_setting(caught.value) is is_setting


def test_an_engine_that_leaves_more_to_its_connectors_starts_without_terrace(
    connector: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Later(Base, ABC):
        @abstractmethod
        def land_on_the_moon(self) -> None: ...

    monkeypatch.setattr(sys.modules[BASE], "KVConnectorBase_V1", Later)
    monkeypatch.setattr(compat, "engine_version", lambda: "0.99.0")
    monkeypatch.setattr(compat, "contract_refusal", lambda *_args: "")
    monkeypatch.setattr(LOGGER, "propagate", True)
    later = importlib.reload(connector)
    made = later.TerraceConnector(None, 1, None)
    assert made._scheduler is None
    assert "vLLM 0.99.0 calls in another way: land_on_the_moon" in caplog.text
