"""Host, disk and the shared store: what lies where, and what moves."""

from __future__ import annotations

from dashboards.panel import Dashboard, Panel, areas, gain, lines, rate, stat


def _fill(tier: str) -> str:
    taken = f'sum(terrace_pool_slots{{tier="{tier}",state="sealed"}})'
    free = f'sum(terrace_pool_slots{{tier="{tier}",state="free"}})'
    return f"{taken} / ({taken} + {free})"


TIERS = Dashboard(
    "tiers",
    "Terrace / Tiers",
    "What lies where, and what moves between host, disk and the shared store.",
    (
        stat(
            "Host filled",
            "percentunit",
            _fill("host"),
            "Slots with a block. Full is good: it means that the space is used.",
        ),
        stat(
            "Disk filled",
            "percentunit",
            _fill("disk"),
            "Slots with a block. It stays low after days: see Blocks not written to disk.",
        ),
        stat(
            "Served from disk",
            "bytes",
            f"sum({gain('terrace_disk_served_bytes_total')})",
            "Bytes of blocks read from disk and verified, in the time shown.",
        ),
        stat(
            "Written per byte served",
            "short",
            "max(terrace_disk_written_per_served)",
            "Since the start, of the worst engine. Above 10 for days: the disk wears more than "
            "it helps; set disk.admission = reuse.",
            ((0.0, "green"), (10.0, "orange")),
        ),
        stat(
            "Write budget left",
            "bytes",
            "min(terrace_disk_write_budget_bytes)",
            "What may be written now; 0 without a budget (disk.write_budget, disk.dwpd).",
        ),
        stat(
            "Shared store",
            "bytes",
            "max(terrace_object_store_bytes)",
            "Size as last counted; 0 until an engine has counted (object.max_age or "
            "object.size make it).",
        ),
        areas(
            "Host slots",
            "short",
            "Slots by state. Many pinned: requests wait. Quarantined that stay: a rank died "
            "with copies under way.",
            ('sum by (state) (terrace_pool_slots{tier="host",state!="pinned"})', "{{state}}"),
        ),
        areas(
            "Disk slots",
            "short",
            "Slots by state.",
            ('sum by (state) (terrace_pool_slots{tier="disk"})', "{{state}}"),
        ),
        lines(
            "Slots of others on disk",
            "short",
            "Slots with blocks of other namespaces, and of keys that are not here. They give "
            "way when space is short.",
            ("sum(terrace_disk_foreign_slots)", "other namespaces"),
            ("sum(terrace_disk_locked_slots)", "other keys"),
        ),
        lines(
            "Blocks stored per second",
            "short",
            "Blocks that arrived in a lower tier.",
            (
                f"sum by (source, target) ({rate('terrace_transfer_blocks_total')})",
                "{{source}} to {{target}}",
            ),
        ),
        lines(
            "Disk throughput",
            "Bps",
            "All bytes that the disk tier reads and writes, its tables included.",
            (f"sum by (op) ({rate('terrace_disk_io_bytes_total')})", "{{op}}"),
        ),
        lines(
            "Disk requests",
            "iops",
            "Requests that ended. Many small ones beside few bytes: larger blocks help "
            "(the engine's block size).",
            (f"sum by (op) ({rate('terrace_disk_io_total')})", "{{op}}"),
        ),
        lines(
            "Blocks on disk per second",
            "short",
            "Blocks read and written, and groups of writes made durable together.",
            (f"sum by (op) ({rate('terrace_disk_blocks_total')})", "{{op}}"),
            (f"sum({rate('terrace_disk_batches_total')})", "groups"),
        ),
        lines(
            "Speed of each directory's device",
            "Bps",
            "While it was busy, of late; 0 until something was moved. One far below the others: "
            "look at that device.",
            ("terrace_disk_device_bytes_per_second", "{{engine}} volume {{volume}}"),
        ),
        lines(
            "Directories that do not answer",
            "s",
            "How long a look at a directory's path has been under way, and how often in ten "
            "minutes one was left alone as nothing came back. `terrace status` names the path and "
            "the call.",
            ("terrace_disk_look_seconds", "{{engine}} volume {{volume}}"),
            (
                "sum by (engine, volume) (increase(terrace_disk_hangs_total[10m]))",
                "times: {{engine}} volume {{volume}}",
            ),
        ),
        areas(
            "Blocks not written to disk",
            "short",
            "Per second. write_budget: the budget is used up. full, unavailable: see "
            "`terrace status`. queue: the device is too slow for what is stored.",
            (f"sum by (reason) ({rate('terrace_disk_drop_blocks_total')})", "{{reason}}"),
        ),
        Panel(
            "Write budget",
            "bytes",
            "Left now, and of 24 hours. Below 0: debt, nothing is written until it is paid.",
            (
                ("sum(terrace_disk_write_budget_bytes)", "left"),
                ("sum(terrace_disk_write_budget_day_bytes)", "of a day"),
            ),
            below_zero=True,
        ),
        lines(
            "Writes at a time",
            "short",
            "Block writes that may be at the disk at once; few while blocks are read.",
            ("avg(terrace_disk_write_window)", "window"),
        ),
        lines(
            "Time of a disk transfer",
            "s",
            "Mean of reads and writes, from the queue's entry to their end. ttft_read: somebody "
            "waits for it. Rising beside steady bytes: the device is slower than it was.",
            (
                f"sum by (class) ({rate('terrace_disk_transfer_seconds_sum')}) / "
                f"sum by (class) ({rate('terrace_disk_transfer_seconds_count')})",
                "{{class}}",
            ),
        ),
        lines(
            "Transfers that wait for the disk",
            "short",
            "By class, the most urgent first: ttft_read, prefetch, offload_write, scrub.",
            ("sum by (class) (terrace_disk_waiting_transfers)", "{{class}}"),
        ),
        lines(
            "Reads that nobody wants any more",
            "short",
            "Blocks per second that were not read, as who had asked for them was aborted or ended. "
            "Many: clients give up, or look-ups wait too long (lookup.deadline).",
            (f"sum by (tier) ({rate('terrace_cancel_blocks_total')})", "{{tier}}"),
        ),
        lines(
            "Queues",
            "short",
            "Blocks that wait, and how many may. At its limit blocks are dropped, or answers get "
            "shorter.",
            ("sum by (queue) (terrace_queue_blocks)", "{{queue}}"),
            ("sum by (queue) (terrace_queue_limit_blocks)", "{{queue}} at most"),
        ),
        areas(
            "Memory",
            "bytes",
            "Of the engines' owners: blocks in host, and what is kept about blocks.",
            ("sum by (of) (terrace_memory_bytes)", "{{of}}"),
        ),
        lines(
            "Shared store: packs per second",
            "short",
            "was_there: other engines have put the same before. gone: it was removed between "
            "look-up and read. Errors: see Terrace / Faults.",
            (f"sum by (op) ({rate('terrace_object_packs_total')})", "{{op}}"),
        ),
        lines(
            "Shared store: bytes",
            "Bps",
            "Verified payloads read, and packs put.",
            (f"sum by (op) ({rate('terrace_object_bytes_total')})", "{{op}}"),
        ),
        lines(
            "Shared store: requests and look-ups per second",
            "reqps",
            "Requests to the store, and chains looked up in it.",
            (f"sum by (op) ({rate('terrace_object_requests_total')})", "{{op}}"),
            (f"sum({rate('terrace_object_probes_total')})", "look-ups"),
        ),
        lines(
            "Shared store: what lies there",
            "short",
            "Packs as last counted, and those removed as too old or too many. It grows without "
            "end: set object.max_age or object.size.",
            ("max(terrace_object_store_packs)", "packs"),
            (f"sum({gain('terrace_object_gc_packs_total')})", "removed"),
        ),
    ),
)
