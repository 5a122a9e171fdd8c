"""Second implementation of disk.md, from the document alone: pages, records, places of frames.

Standard library only; `reference.py` writes and compares the vectors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

from checksum import U64, crc32c, splitmix_bytes

PAGE = 4096
SHOWN = 64  # bytes of a page that a vector shows; the rest is zeros

COLUMNS = (
    f"by the first one. Bytes are hex; of a page those before {SHOWN} are shown, the rest is zeros.\n"
    "# extent-bytes: size of 0.slots when it is made, extent_bytes\n"
    "# used: seconds since 1970 that used.txt says, its content\n"
    "# extents-page: extent_bytes, creation, bytes\n"
    "# extents-record: e, namespace number, first extent of the run, extents of the run, stamp,"
    " offset in extents.meta, bytes\n"
    "# slots-page: epoch, groups, run_slots, run_extents, generation, era, doubt, bytes\n"
    "# slots-record: groups, i, group, sequence hash, alias, sequence number, stamp, generation,"
    " epoch, namespace number, state, id of the key (or -), offset in slots.meta, bytes\n"
    "# writes-page: when, bytes that may be written yet, set (0 = none), copies of it, bytes\n"
    "# learned-half: number, seed and bytes of the payload (SplitMix64), bytes of the page\n"
    "# layout: extents of the file, extent_bytes, ranks, payload bytes of each group, run_extents, run_slots\n"
    "# frame: extents of the file, extent_bytes, ranks, payload bytes of each group, group, i, rank,"
    " run, offset in 0.slots"
)


# ---- used.txt ------------------------------------------------------------------------------------


def used(content: bytes) -> int:
    digits = content[:-1]
    is_whole = content[-1:] == b"\n" and digits.isdigit() and int(digits) < 1 << 63
    return int(digits) if is_whole else 0


def used_vectors() -> list[list[str]]:
    written = [f"{seconds}\n".encode() for seconds in (1, 1_767_225_600, (1 << 63) - 1)]
    others = [
        b"", b"\n", b"1767225600", b"1767225600\r\n", b"1767225600\n\n", b" 1767225600\n",
        b"-1767225600\n", b"+1767225600\n", b"1767225600x\n", b"0x10\n", b"1e9\n",
        b"%d\n" % (1 << 63), b"%d\n" % (1 << 64), b"\0" * 11,
    ]
    assert all(used(content) > 0 for content in written) and not any(map(used, others))
    return [["used", str(used(content)), content.hex()] for content in written + others]


# ---- Extents and runs ----------------------------------------------------------------------------


def extent_bytes(size: int) -> int:
    extent = 64 << 10
    while extent < 64 << 20 and 2 * extent <= size // 64:
        extent *= 2
    return extent


@dataclass(frozen=True)
class Layout:
    extents: int  # as many as the file may have
    extent_bytes: int
    ranks: int
    payloads: tuple[int, ...]  # of each KV group

    def frame(self, group: int) -> int:
        return PAGE + (self.payloads[group] + PAGE - 1) // PAGE * PAGE

    def slot(self, group: int) -> int:
        return self.ranks * self.frame(group)

    def run_slots(self, extents: int) -> int:
        return extents * self.extent_bytes // sum(map(self.slot, range(len(self.payloads))))

    def waste(self, extents: int) -> Fraction:
        """The part of a run that no frame takes."""
        used = self.run_slots(extents) * sum(map(self.slot, range(len(self.payloads))))
        return 1 - Fraction(used, extents * self.extent_bytes)

    def run_extents(self) -> int:
        lengths = range(1, self.extents + 1)
        enough = (length for length in lengths if self.waste(length) <= Fraction(1, 16))
        return next(enough, None) or min(lengths, key=self.waste)

    def place(self, group: int, i: int, rank: int) -> tuple[int, int]:
        """The run of slot i, and the offset of the frame."""
        extents = self.run_extents()
        n = self.run_slots(extents)
        run = i // n
        offset = run * extents * self.extent_bytes + n * sum(map(self.slot, range(group)))
        return run, offset + i % n * self.slot(group) + rank * self.frame(group)

    def text(self) -> list[str]:
        numbers = [str(self.extents), str(self.extent_bytes), str(self.ranks)]
        return [*numbers, ",".join(map(str, self.payloads))]


def layout_vectors() -> list[list[str]]:
    layouts = [
        Layout(16, 64 << 10, 1, (4096,)), Layout(64, 64 << 10, 1, (1,)),
        Layout(64, 64 << 10, 1, (61_440,)), Layout(64, 64 << 10, 1, (61_441,)),
        Layout(64, 1 << 20, 2, (98_304, 4097)), Layout(100, 64 << 20, 8, (737_280,)),
        Layout(1 << 20, 64 << 20, 64, (1 << 20, 12_288, 1)), Layout(1000, 1 << 20, 4, (5 << 20,)),
        Layout(64, 4 << 20, 1, (1 << 20, 1 << 20)),
        # Files with too few extents for a run that wastes little: the best of what there is.
        Layout(8, 64 << 10, 1, (61_441,)), Layout(6, 4 << 20, 1, (1 << 20, 1 << 20)),
        Layout(3, 64 << 10, 1, (90_000,)),
    ]
    rows = []
    for layout in layouts:
        extents = layout.run_extents()
        n = layout.run_slots(extents)
        rows.append(["layout", *layout.text(), str(extents), str(n)])
        last = len(layout.payloads) - 1, layout.ranks - 1
        places = {(0, 0, 0), (0, n, 0), (last[0], n - 1, last[1]), (last[0], 5 * n + n // 2, 0)}
        for group, i, rank in sorted(places):
            run, offset = layout.place(group, i, rank)
            if run < layout.extents // extents:
                rows.append(["frame", *layout.text(), *map(str, (group, i, rank, run, offset))])
    return rows


# ---- extents.meta, slots.meta, writes.meta, learned.meta -----------------------------------------


def page(magic: bytes, fields: bytes) -> bytes:
    start = magic + struct.pack("<I", 1)
    whole = (start + bytes(4) + fields).ljust(PAGE, b"\0")
    return start + struct.pack("<I", crc32c(whole)) + whole[16:]


def shown(whole: bytes) -> str:
    assert len(whole) == PAGE and not any(whole[SHOWN:])
    return whole[:SHOWN].hex()


def with_crc(fields: bytes) -> bytes:
    return fields + struct.pack("<I", crc32c(fields))


def extents_record(e: int, namespace: int, first: int, count: int, stamp: int) -> bytes:
    return with_crc(struct.pack("<IIIIQI", namespace, first, count, e, stamp, 0))


@dataclass(frozen=True)
class Record:
    groups: int  # of the namespace
    i: int
    group: int
    sequence_hash: bytes
    alias: int
    number: int
    stamp: int
    generation: int
    epoch: int
    namespace: int
    state: int  # Of a record whose frames are not encrypted.
    key_id: bytes = b""

    def offset(self) -> int:
        return 8192 + 64 * (self.i * self.groups + self.group)

    def encode(self) -> bytes:
        high, low = struct.unpack(">QQ", self.sequence_hash)
        return with_crc(struct.pack(
            "<QQQQQIIIHHI", high, low, self.alias, self.number, self.stamp, self.generation,
            self.epoch, self.namespace, self.group, self.shown_state(), self.i,
        ))

    def shown_state(self) -> int:
        """As encryption.md says it for encrypted frames."""
        return 0x8000 + (struct.unpack(">H", self.key_id[:2])[0] >> 1) if self.key_id else self.state

    def row(self) -> list[str]:
        numbers = (self.alias, self.number, self.stamp, self.generation, self.epoch, self.namespace,
                   self.shown_state())
        return ["slots-record", *map(str, (self.groups, self.i, self.group)),
                self.sequence_hash.hex(), *map(str, numbers), self.key_id.hex() or "-",
                str(self.offset()), self.encode().hex()]


def record_vectors() -> list[list[str]]:
    counting = bytes(range(16))
    key_id = bytes.fromhex("fedcba9876543210")
    records = [
        Record(1, 0, 0, counting, 0, 1, 1, 1, 1, 1, 1),
        Record(0x0203, 0x05060708, 0x0102, counting, 0x1112131415161718, 0x2122232425262728,
               0x3132333435363738, 0x41424344, 0x51525354, 0x61626364, 1),
        Record(2, 7, 1, bytes(16), 0, 9, 3, 0, 1, 4, 2),
        Record(2, 7, 1, counting, 0, 9, 3, 2, 1, 4, 1, key_id),
        Record(3, 1, 2, bytes([0xFF] * 16), U64, U64, U64, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF,
               1, bytes(8)),
        Record(64, 0xFFFFFFFE, 63, bytes(16), 0, 0, 0, 0, 0, 0, 1, bytes([0xFF] * 8)),
    ]
    return [record.row() for record in records]


def meta_vectors() -> list[list[str]]:
    rows = []
    for numbers in ((64 << 10, 0), (64 << 20, 1_767_225_600), (1 << 20, 0x1112131415161718)):
        whole = page(b"TERRDISK", struct.pack("<QQ", *numbers))
        rows.append(["extents-page", *map(str, numbers), shown(whole)])
    for record in ((0, 1, 0, 1, 1), (7, 3, 6, 2, 0x1112131415161718), (9, 0, 0, 0, 0),
                   (0x000A1B2C, 0x11121314, 0x21222324, 0x31323334, U64)):
        offset = 4096 + 32 * record[0]
        rows.append(["extents-record", *map(str, (*record, offset)), extents_record(*record).hex()])
    for header in (
        (1, 1, 8, 1, 0, 0, 0),  # as earlier versions wrote it
        (1, 2, 31, 3, 0, 0x1112131415161718, 0),
        (5, 2, 31, 3, 1_767_225_600, U64, 0),
        (0x11121314, 0x21222324, 0x31323334, 0x41424344, 0x5152535455565758, 0x6162636465666768, 1),
    ):
        whole = page(b"TERRMETA", struct.pack("<IIIIQQQ", *header))
        rows.append(["slots-page", *map(str, header), shown(whole)])
    rows += record_vectors()
    for when, left in ((0, 0), (1_767_225_600, 1 << 40), (1_767_225_600, -4097), (1, -(1 << 63))):
        whole = page(b"TERRWEAR", struct.pack("<Qq", when, left))
        rows.append(["writes-page", str(when), str(left), "0", "1", shown(whole)])
    for account in (
        (0, 0, 1, 1),
        (1_767_225_600, -4097, U64, 2),
        (1, 1 << 40, 0x1112131415161718, 0x21222324),
    ):
        whole = page(b"TERRWEAR", struct.pack("<QqQI", *account))
        rows.append(["writes-page", *map(str, account), shown(whole)])
    for number, length in ((1, 1), (2, 5000), (0x1112131415161718, 258_048)):
        payload = splitmix_bytes(number, length)
        whole = page(b"TERRLRND", struct.pack("<QII", number, length, crc32c(payload)))
        rows.append(["learned-half", str(number), str(number), str(length), shown(whole)])
    return rows


def vectors() -> list[list[str]]:
    sizes = (1 << 20, (8 << 20) - 1, 8 << 20, 100_000_000, 1 << 32, 1_000_000_000_000)
    rows = [["extent-bytes", str(size), str(extent_bytes(size))] for size in sizes]
    return rows + used_vectors() + meta_vectors() + layout_vectors()
