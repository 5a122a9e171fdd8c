"""Digests of multimodal items, by what the model is given of them and not by what they are called.

An item's identifier is the engine's hash of it or any name that a client chose, and nothing in a
request tells which.  So the tensors that the engine's processor made of the item are digested:
SHA-256, once per object that holds them, by a thread of its own, as a video takes longer than a
scheduler may wait.
"""

from __future__ import annotations

import hashlib
import signal
import struct
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

# More than an encoder's cache holds: an item takes at least one of its places, mostly hundreds.
_MOST_NAMES = 65_536


# What says how many places an item takes, in vLLM 0.32's models (`embedding_fields`, role
# "metadata").  An engine that takes KV from elsewhere accepts items of nothing else: whose picture
# it is stands in the name alone.
_SIZES = frozenset(
    (
        "audio_feature_lengths",
        "audio_num_tokens",
        "image_grid_thw",
        "image_sizes",
        "timestamps",
        "video_grid_thw",
        "video_image_sizes",
    )
)

OF_TWO = "multimodal items whose name has meant another item"


class UnseenItem(Exception):
    """An item whose content this process does not have, or cannot read; says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    name: str
    meaning: bytes  # Digest of its kind and its content.
    digest: bytes  # The same, and which of its places take what the model makes of it.


class ItemDigests:
    """For the scheduler's thread alone."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._digests: dict[int, tuple[weakref.ref[Any], Future[bytes | str]]] = {}
        self._names: OrderedDict[str, bytes] = OrderedDict()  # b"" = of more than one meaning.

    def is_ready(self, features: Any) -> bool:
        """Starts what is not digested yet; True once `read` need not wait for any of them."""
        futures = [self._start(feature.data) for feature in features if feature.data is not None]
        return all(future.done() for future in futures)

    def read_all(self, features: Any) -> list[Seen]:
        """In their order; UnseenItem when one has no digest, after the names of all are known."""
        seen = []
        unseen: UnseenItem | None = None
        for feature in features:
            try:
                seen.append(self.read(feature))
            except UnseenItem as error:
                unseen = unseen or error
        if unseen is not None:
            raise unseen
        return seen

    def read(self, feature: Any) -> Seen:
        """UnseenItem when it has no digest."""
        name = str(feature.identifier)
        try:
            content = self._content(feature.data)
            meaning = _sha256([feature.modality, content])
        except UnseenItem:
            self._remember(name, b"")
            raise
        if self._remember(name, meaning) != meaning:
            self._remember(name, b"")
            raise UnseenItem(OF_TWO)
        return Seen(name, meaning, _sha256([meaning, feature.mm_position.is_embed]))

    def still_mean(self, items: Iterable[Seen]) -> bool:
        """False once a name of theirs has meant another item, or is forgotten."""
        return all(self._names.get(item.name) == item.meaning for item in items)

    def _content(self, data: Any) -> bytes:
        if data is None:
            raise UnseenItem("multimodal items whose data did not come along")
        try:
            future = self._start(data)
        except TypeError as error:  # Of a kind that cannot be referred to weakly.
            raise UnseenItem(_strange_form(error)) from error
        if not future.done():
            raise UnseenItem("multimodal items that took too long to digest")
        outcome = future.result()
        if isinstance(outcome, str):
            raise UnseenItem(outcome)
        return outcome

    def _remember(self, name: str, meaning: bytes) -> bytes:
        """What the name means; b"" overrules and stays.

        The engine keeps what its encoder made of an item by the item's name: under one that has
        meant two items, no one knows which of them the model sees.
        """
        if not meaning or name not in self._names:
            self._names[name] = meaning
        self._names.move_to_end(name)
        if len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)
        return self._names[name]

    def _start(self, data: Any) -> Future[bytes | str]:
        key = id(data)
        found = self._digests.get(key)
        if found is not None and found[0]() is data:
            return found[1]
        forget = self._digests.pop
        known = weakref.ref(data, lambda _: forget(key, None))
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "terrace-items", _block_signals)
        future = self._pool.submit(_outcome, data)
        self._digests[key] = (known, future)
        return future

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _strange_form(error: Exception) -> str:
    return f"multimodal items of a strange form ({type(error).__name__})"


def _outcome(item: Any) -> bytes | str:
    """The digest, or why there is none.

    A future that kept the exception would keep its frames, and by them the item itself.
    """
    try:
        return digest(item)
    except UnseenItem as error:
        return str(error)
    except Exception as error:  # Whatever a strange item makes torch or numpy raise.
        return _strange_form(error)


def digest(item: Any) -> bytes:
    """SHA-256 of the fields of vLLM's MultiModalKwargsItem, in an order-free, prefix-free form."""
    if "address" in item:
        raise UnseenItem("multimodal items in shared memory (--mm-processor-cache-type shm)")
    if item and set(item) <= _SIZES | _sizes_of_loaded_models():
        raise UnseenItem("multimodal items of which only the size came along")
    return _sha256({name: element.data for name, element in item.items()})


def _sizes_of_loaded_models() -> set[str]:
    """The same as those models say that this process has loaded, of whatever release."""
    parse = sys.modules.get("vllm.multimodal.parse")
    parsers = [getattr(parse, "MultiModalDataParser", object)] if parse is not None else []
    names: set[str] = set()
    while parsers:
        parser = parsers.pop()
        if parser is object:
            continue
        parsers += parser.__subclasses__()
        for roles in getattr(parser, "embedding_fields", {}).values():
            names |= {name for name, role in roles.items() if role == "metadata"}
    return names


def _sha256(value: Any) -> bytes:
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.digest()


def _feed(hasher: Any, value: Any) -> None:
    """Each value goes in as its kind, the length of what follows, and that."""
    if isinstance(value, Mapping):
        _frame(hasher, "mapping", len(value))
        for name in sorted(value):
            _feed(hasher, name)
            _feed(hasher, value[name])
    elif isinstance(value, list | tuple):
        _frame(hasher, "sequence", len(value))
        for one in value:
            _feed(hasher, one)
    elif value is None or isinstance(value, bool | int | float | str):
        data = repr(value).encode()
        _frame(hasher, type(value).__name__, len(data))
        hasher.update(data)
    elif isinstance(value, bytes):
        _frame(hasher, "bytes", len(value))
        hasher.update(value)
    else:
        _feed_array(hasher, value)


def _feed_array(hasher: Any, value: Any) -> None:
    import numpy as np
    import torch

    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        kind, flat = value.dtype.str, np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    elif isinstance(value, torch.Tensor) and value.layout is torch.strided:
        if value.device.type != "cpu":  # Fetching it would make the scheduler wait for the device.
            raise UnseenItem("multimodal items that were made on the device")
        whole = value.detach().contiguous().reshape(-1)
        kind, flat = str(value.dtype), whole.view(torch.uint8).numpy()
    else:
        raise UnseenItem(f"multimodal items with a field of kind {type(value).__name__}")
    _feed(hasher, [kind, [int(size) for size in value.shape]])
    _frame(hasher, "array", flat.nbytes)
    hasher.update(flat)


def _frame(hasher: Any, kind: str, size: int) -> None:
    hasher.update(kind.encode() + b"\0" + struct.pack("<Q", size))
