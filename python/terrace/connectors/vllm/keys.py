"""What of a request, besides its token ids, enters the keys of its blocks; or why it has no key.

A request that carries anything this module does not know is not cached.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrace._native import ExtraKey
from terrace.connectors.vllm.items import OF_TWO, ItemDigests, Seen, UnseenItem

# Every attribute of vLLM 0.30 to 0.32's Request.  Those outside _KEYED and _UNKEYABLE were read in
# its source and change no KV; a name that a later version adds makes requests unkeyable until read.
_KEYED = {"cache_salt", "lora_request", "mm_features", "prompt_token_ids"}
_UNKEYABLE = {"prompt_embeds", "prompt_is_token_ids", "resumable"}
_WITHOUT_EFFECT = {
    "_all_token_ids",
    "_block_hasher",
    "_output_token_ids",
    "_prompt_embeds_per_block_hashes",
    "abort_immediately",
    "all_token_ids",
    "arrival_time",
    "block_hashes",
    "client_index",
    "discard_latest_async_tokens",
    "drop_stale_output",
    "ec_transfer_params",
    "events",
    "is_prefill_chunk",
    "kv_cache_report_mode",
    "kv_hints",
    "kv_transfer_params",
    "last_sched_seq",
    "max_tokens",
    "next_decode_eligible_step",
    "num_computed_tokens",
    "num_in_flight_tokens",
    "num_nans_in_logits",
    "num_output_placeholders",
    "num_preemptions",
    "num_prompt_tokens",
    "num_stale_output_tokens",
    "output_token_ids",
    "pooling_params",
    "prefill_stats",
    "priority",
    "replay_start",
    "request_id",
    "sampling_params",
    "session_id",
    "shared_prefix_boundary",
    "skip_reading_prefix_cache",
    "spec_decode_metrics",
    "spec_token_ids",
    "status",
    "stop_reason",
    "streaming_queue",
    "structured_output_request",
    "trace_headers",
    "use_structured_output",
}
_KNOWN = _KEYED | _UNKEYABLE | _WITHOUT_EFFECT
_LORA_KNOWN = {"lora_name", "lora_int_id", "lora_path", "base_model_name"}
# Of any release: weights by way of tensorizer went with 0.32.
_LORA_NEUTRAL = {"load_inplace": False, "is_3d_lora_weight": False, "tensorizer_config_dict": None}
ADAPTER_OF_TWO = "LoRA adapters whose id has meant another adapter, or was loaded in place"
# Ids whose meaning is kept; beyond them an adapter has no key. None is forgotten: an engine may pin
# what it loaded under one.
_MOST_ADAPTERS = 65_536
# Files are stamped by a clock of coarse ticks: what changed now may seem to be that much older.
_COARSE_TICK_NS = 20_000_000
_MOST_LINKS = 40  # As Linux has it.


@dataclass(frozen=True, slots=True)
class Named:
    """An adapter as a request names it."""

    number: int
    name: str
    path: str


@dataclass(frozen=True)
class RequestKeys:
    extra_keys: tuple[ExtraKey, ...] = ()
    unkeyable: str = ""  # Why the request has no key; "" = it has.
    items: tuple[Seen, ...] = ()  # Behind the keys of its multimodal items.
    adapter: Named | None = None  # Behind the key of its adapter.

    @property
    def can_lapse(self) -> bool:
        """What the engine computes under them may one day be of another item, or adapter."""
        return bool(self.items) or self.adapter is not None


class AdapterIds:
    """What the ids of LoRA adapters mean.

    The engine finds an adapter's weights by its id alone and keeps those that it loaded first, and
    it loads them anew for a request that says so (load_inplace): under an id that has meant two
    adapters no one knows whose weights compute.  Such an id means nothing from then on.
    """

    def __init__(self) -> None:
        self._named: dict[int, Named | None] = {}  # None = of more than one meaning.

    def remember(self, number: int, named: Named | None) -> None:
        """`named`: None where the request asks for more than to use the adapter that it names."""
        if number not in self._named:
            if len(self._named) < _MOST_ADAPTERS:
                self._named[number] = named
        elif self._named[number] != named:
            self._named[number] = None

    def still_means(self, named: Named) -> bool:
        return self._named.get(named.number) == named


@dataclass
class KeyMaker:
    """Reads requests.  `digest_weights` fingerprints an adapter's tensors, once per adapter.

    It reads the adapter's files at its first request.  The engine loaded them at a time that nobody
    tells: at its own start, by a call, or for that request.  Files that have not changed since the
    engine began are what it loaded, whenever that was; of newer ones nobody knows.
    """

    digest_weights: Callable[[str], str]
    sees_items: bool = True  # What the model gets of multimodal items is in the request.
    adapter_settings: str = ""  # The engine's own for what it makes of any adapter.
    engine_began_ns: int = field(default_factory=time.time_ns)
    _items: ItemDigests = field(default_factory=ItemDigests)
    _ids: AdapterIds = field(default_factory=AdapterIds)
    _adapters: dict[Named, tuple[tuple[int, ...], str]] = field(default_factory=dict)

    def is_ready(self, request: Any) -> bool:
        """False while the request's items are being digested: read before, it is unkeyable."""
        features = getattr(request, "mm_features", None)
        if not features or not self.sees_items:
            return True
        try:
            return self._items.is_ready(features)
        except (AttributeError, TypeError):
            return True  # Of another form, as `read` will say.

    def close(self) -> None:
        self._items.close()

    def read(self, request: Any) -> RequestKeys:
        """Never raises for a strange request: it is unkeyable."""
        try:
            return self._read(request)
        except UnseenItem as error:
            return RequestKeys(unkeyable=str(error))
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            # For one, text that has no UTF-8.  Named by kind alone: reasons are counted apart.
            return RequestKeys(unkeyable=f"attributes of another form ({type(error).__name__})")

    def _read(self, request: Any) -> RequestKeys:
        # First: of the adapter and of each item the name is taken down.
        adapter = self._name_adapter(request.lora_request)
        items = self._seen(request)
        reason = _strange(request)
        if reason:
            return RequestKeys(unkeyable=reason)
        keys: list[ExtraKey] = []
        if request.cache_salt:
            keys.append(ExtraKey(ExtraKey.SALT, str(request.cache_salt).encode()))
        if request.lora_request is not None:
            if adapter is not None and not self._ids.still_means(adapter):
                return RequestKeys(unkeyable=ADAPTER_OF_TWO)
            identity = self._adapter(adapter) if adapter is not None else b""
            if not identity:
                return RequestKeys(unkeyable="LoRA adapter that cannot be identified")
            keys.append(ExtraKey(ExtraKey.LORA, identity))
        for feature, item in zip(request.mm_features or (), items, strict=True):
            place = int(feature.mm_position.offset), int(feature.mm_position.length)
            keys.append(ExtraKey(ExtraKey.MULTIMODAL, item.digest.hex().encode(), *place))
        return RequestKeys(tuple(keys), items=tuple(items), adapter=adapter)

    def _seen(self, request: Any) -> list[Seen]:
        if request.mm_features and not self.sees_items:
            raise UnseenItem("multimodal items that another engine encodes")
        return self._items.read_all(request.mm_features or ())

    def lapsed(self, keys: RequestKeys) -> str:
        """Why the model may see another item, or have another adapter, than was keyed; "" = not.

        The engine asks its encoder by an item's name and finds an adapter by its id: from when that
        has meant two, what a request under way computes may be of either.
        """
        if not self._items.still_mean(keys.items):
            return OF_TWO
        if keys.adapter is not None and not self._ids.still_means(keys.adapter):
            return ADAPTER_OF_TWO
        return ""

    def _name_adapter(self, lora: Any) -> Named | None:
        """None without an adapter that is only to be used, in a form that is known.

        Also of a request without key: the engine loads its adapter all the same.
        """
        number = getattr(lora, "lora_int_id", None)
        if not isinstance(number, int):
            return None  # Nor would an engine find an adapter by that.
        named = Named(number, str(lora.lora_name), str(lora.lora_path)) if _is_plain(lora) else None
        self._ids.remember(number, named)
        return named

    def _adapter(self, named: Named) -> bytes:
        """Name and content of the adapter; empty when unknown, or newer than the engine."""
        try:
            state, changed_ns = _folder_state(named.path)
            if changed_ns + _COARSE_TICK_NS >= self.engine_began_ns:
                return b""
            if named not in self._adapters:
                self._adapters[named] = (state, self._adapter_content(named.path))
        except Exception:  # An unreadable adapter is the engine's error to report, not ours.
            return b""
        known_state, digest = self._adapters[named]
        # The engine keeps the adapter it loaded first; which one that was is no longer certain.
        if state != known_state:
            return b""
        return f"{named.name}\0{digest}".encode()

    def _adapter_content(self, path: str) -> str:
        """Its weights, and how strongly and where they act: the same ones may be scaled anew."""
        # The engine takes these where they are, and else a pickle, whatever lies beside it.
        if not (Path(path) / "adapter_model.safetensors").is_file():
            raise FileNotFoundError(path)
        facts = hashlib.sha256(self.adapter_settings.encode() + b"\0")
        facts.update((Path(path) / "adapter_config.json").read_bytes())
        return f"{self.digest_weights(path)}\0{facts.hexdigest()}"


def _is_plain(lora: Any) -> bool:
    """Nothing that we do not know, or that asks for more than to use the adapter."""
    names: Any = getattr(lora, "__struct_fields__", None) or getattr(lora, "__dict__", ())
    fields = set(names)
    return {"lora_name", "lora_path"} <= fields <= _LORA_KNOWN | set(_LORA_NEUTRAL) and all(
        getattr(lora, other, neutral) == neutral for other, neutral in _LORA_NEUTRAL.items()
    )


def _strange(request: Any) -> str:
    unknown = vars(request).keys() - _KNOWN
    if unknown:
        return f"unknown request attribute {sorted(unknown)[0]}"
    if request.prompt_token_ids is None or request.prompt_embeds is not None:
        return "prompt embeddings"
    if getattr(request, "prompt_is_token_ids", None) is not None:
        return "prompt embeddings between tokens"
    if getattr(request, "resumable", False):
        return "streaming input"
    return ""


def _folder_state(path: str) -> tuple[tuple[int, ...], int]:
    """Identity, size and times of a folder's files: changes when one of them is replaced.

    Beside it the last of the times at which one of them, the folder or a link that leads to it
    changed.
    """
    folder = Path(path).stat()
    state = [folder.st_dev, folder.st_ino]
    changed_ns = max(folder.st_ctime_ns, _links_changed_ns(path))
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda found: found.name):
            if entry.is_file():
                facts = entry.stat()
                state += [facts.st_dev, facts.st_ino, facts.st_size]
                state += [facts.st_mtime_ns, facts.st_ctime_ns]
                changed_ns = max(changed_ns, facts.st_ctime_ns)
                if entry.is_symlink():
                    changed_ns = max(changed_ns, _links_changed_ns(entry.path))
    return tuple(state), changed_ns


def _links_changed_ns(path: str) -> int:
    """When one of the links that the path leads through changed last; 0 = it leads through none."""
    changed_ns = links = 0
    reached = Path("/")
    ahead = [*reversed((Path.cwd() / path).parts[1:])]
    while ahead:
        part = ahead.pop()
        if part == "..":
            reached = reached.parent
            continue
        facts = (reached / part).lstat()
        if not stat.S_ISLNK(facts.st_mode):
            reached /= part
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        changed_ns = max(changed_ns, facts.st_ctime_ns)
        target = (reached / part).readlink()
        ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        if target.is_absolute():
            reached = Path("/")
    return changed_ns
