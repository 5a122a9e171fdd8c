"""What a client says of its request, on its way to the C ABI."""

from __future__ import annotations

import ctypes as c
from dataclasses import dataclass

from terrace._abi import PRIORITY_NORMAL, HintsStruct


@dataclass(frozen=True)
class Hints:
    """As in terrace_hints; the defaults say nothing.

    `ignored`: others that could not be read, which the core only counts.
    """

    session: bytes = b""
    flags: int = 0
    return_ns: int = 0
    priority: int = PRIORITY_NORMAL
    ignored: int = 0

    def __bool__(self) -> bool:
        """Anything was said, or tried to be."""
        return self != Hints()

    def struct(self) -> HintsStruct:
        """Borrows the session's bytes: for one call."""
        return HintsStruct(
            struct_size=c.sizeof(HintsStruct),
            flags=self.flags,
            session=self.session or None,
            session_length=len(self.session),
            return_ns=self.return_ns,
            priority=self.priority,
            ignored=self.ignored,
        )
