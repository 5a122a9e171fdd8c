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
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

# More than an encoder's cache holds: an item takes at least one of its places, mostly hundreds.
_MOST_NAMES = 65_536


class UnseenItem(Exception):
    """An item whose content this process does not have, or cannot read; says why."""


class ItemDigests:
    """For the scheduler's thread alone."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._digests: dict[int, tuple[weakref.ref[Any], Future[bytes]]] = {}
        self._names: OrderedDict[str, bytes] = OrderedDict()  # b"" = of more than one content.

    def is_ready(self, features: Any) -> bool:
        """Starts what is not digested yet; True once `read` need not wait for any of them."""
        futures = [self._start(feature.data) for feature in features if feature.data is not None]
        return all(future.done() for future in futures)

    def read(self, feature: Any) -> bytes:
        """32 bytes; UnseenItem when it has none."""
        name = str(feature.identifier)
        try:
            content = self._content(feature.data)
        except UnseenItem:
            self._remember(name, b"")
            raise
        if self._remember(name, content) != content:
            self._remember(name, b"")
            raise UnseenItem("multimodal items whose name has meant another item")
        hasher = hashlib.sha256()
        _feed(hasher, [feature.modality, content, feature.mm_position.is_embed])
        return hasher.digest()

    def _content(self, data: Any) -> bytes:
        if data is None:
            raise UnseenItem("multimodal items whose data did not come along")
        future = self._start(data)
        if not future.done():
            raise UnseenItem("multimodal items that took too long to digest")
        try:
            return future.result()
        except UnseenItem:
            raise
        except Exception as error:  # Whatever a strange item makes torch or numpy raise.
            raise UnseenItem(
                f"multimodal items of a strange form ({type(error).__name__})"
            ) from error

    def _remember(self, name: str, content: bytes) -> bytes:
        """What the name means; b"" overrules and stays.

        The engine keeps what its encoder made of an item by the item's name: under one that has
        meant two items, no one knows which of them the model sees.
        """
        if not content or name not in self._names:
            self._names[name] = content
        self._names.move_to_end(name)
        if len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)
        return self._names[name]

    def _start(self, data: Any) -> Future[bytes]:
        key = id(data)
        found = self._digests.get(key)
        if found is not None and found[0]() is data:
            return found[1]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "terrace-items", _block_signals)
        future = self._pool.submit(digest, data)
        forget = self._digests.pop
        self._digests[key] = (weakref.ref(data, lambda _: forget(key, None)), future)
        return future

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def digest(item: Any) -> bytes:
    """SHA-256 of the fields of vLLM's MultiModalKwargsItem, in an order-free, prefix-free form."""
    if "address" in item:
        raise UnseenItem("multimodal items in shared memory (--mm-processor-cache-type shm)")
    hasher = hashlib.sha256()
    _feed(hasher, {name: element.data for name, element in item.items()})
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
