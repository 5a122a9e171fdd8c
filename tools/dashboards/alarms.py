"""The alerts: when each fires, what that means, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

EACH = "instance, engine"


@dataclass(frozen=True)
class Alarm:
    """Fires while `query` `compare` holds for `lasts`.

    `query` has a value on every engine that has what it is about, so that a test can tell a query
    that asks for nothing from one that is quiet. `fires` are series that make it fire after
    eight hours, one value a minute in promtool's words; it must rest where the first of them
    stays what it was. Instance and engine are added.
    """

    name: str
    severity: str
    query: str
    compare: str
    lasts: str
    summary: str
    means: str
    way_out: str
    fires: tuple[tuple[str, str], ...]

    @property
    def expression(self) -> str:
        return f"{self.query} {self.compare}"


def _grew(metric: str, window: str, by: str = EACH) -> str:
    return f"sum by ({by}) (increase({metric}[{window}]))"


def _two(label: str, *parts: tuple[str, str]) -> str:
    """Several vectors as one, told apart by a label."""
    marked = (f'label_replace({query}, "{label}", "{value}", "", "")' for value, query in parts)
    return f"({' or '.join(marked)})"


FAILED = 'terrace_loads_total{result="failed"}'
# Left out: what is dropped because somebody has set it so.
DROPPED = 'terrace_drop_blocks_total{queue!~"admission|object_admission|write_budget|mode|pins"}'
OFFLOADED = 'terrace_transfer_blocks_total{op="offload"}'
BUDGET_DROPS = 'terrace_disk_drop_blocks_total{reason="write_budget"}'
TO_DISK = 'terrace_transfer_blocks_total{op="offload",source="host",target="disk"}'
SCRUBBED_BAD = 'terrace_disk_scrub_blocks_total{result="bad"}'
CANARY_FAILED = 'terrace_canaries_total{result="failed"}'
MEDIAN = 'terrace_plan_ratio{fraction="0.5"}'

ALL = (
    Alarm(
        "TerraceHealthRed",
        "critical",
        _two(
            "cause",
            ("poisoned", f"max by ({EACH}) (terrace_poisoned)"),
            ("canary", f"max by ({EACH}) ({CANARY_FAILED})"),
        ),
        "> 0",
        "0m",
        "Terrace serves nothing: {{ $labels.cause }}",
        "The engine runs and answers as without Terrace. `poisoned`: an invariant of Terrace "
        "broke. `canary`: a rank got other bytes back than it saved, so the engine's KV memory is "
        "not laid out as understood. Whatever else makes health red raises TerraceProblems.",
        "Read `problems` in `terrace status --json` and the lines `event=poisoned` or "
        "`event=canary_failed` of the engine's log. Restart the engine after `poisoned`; after "
        "`canary` run without Terrace. Report the line, with the engine's version.",
        (("terrace_poisoned", "0x10 1x600"), (CANARY_FAILED, "0x600")),
    ),
    Alarm(
        "TerraceProblems",
        "warning",
        f"max by ({EACH}) (terrace_problems)",
        "> 0",
        "2m",
        "Health of an engine's cache is red: {{ $value }} problems",
        "Something is wrong with a tier, a rank, a reset or all of it: a disk directory, the "
        "shared store, host memory that was refused, a rank that cannot attach, a reset that is "
        "not done. The engine runs; there are fewer hits or none. An engine that stands aside "
        "tells nothing and is not listed: see how many the panel Engines counts.",
        "`terrace status` on that machine names each problem and what to do about it.",
        (("terrace_problems", "0x10 1x600"),),
    ),
    Alarm(
        "TerraceUnreachable",
        "warning",
        'up{job="terrace"}',
        "== 0",
        "5m",
        "Metrics of an engine cannot be read",
        "Behind the bridge: the engine was found, and its socket does not answer within its time. "
        "Asked by its own port: it has ended, is starting, stands aside or has no port. Whether it "
        "serves is not known.",
        "Run `terrace status` on that machine. No such engine: it has ended, or stands aside "
        "(`health=red` in its log). A socket that refuses: the bridge has to run as the engine's "
        "user. It answers: look for `event=http_off` in its log.",
        (('up{job="terrace"}', "1x10 0x600"),),
    ),
    Alarm(
        "TerraceSwitchedOff",
        "warning",
        f"max by ({EACH}) (terrace_mode < 3)",
        "> 0",
        "30m",
        "Terrace is switched to read-only (1) or paused (2) for half an hour: {{ $value }}",
        "Somebody has switched it: paused, every look-up misses; read-only, nothing new is stored.",
        "The line `event=mode` of the engine's log says which process and user it was. "
        "`terrace resume` switches it on.",
        (("terrace_mode", "0x10 2x600"),),
    ),
    Alarm(
        "TerraceCorruptBlocks",
        "warning",
        _grew("terrace_corrupt_blocks_total", "30m", f"{EACH}, tier"),
        "> 0",
        "0m",
        "Blocks of the tier {{ $labels.tier }} did not verify",
        "Bytes or header of a block were not what was stored. Each was a miss; no answer was "
        "wrong.",
        "`disk`: the log names file and offset; look at the device's own error counts, run "
        "`terrace scrub`. `object`: the status names the pack; remove it. `host`: look at the "
        "machine's memory errors.",
        (('terrace_corrupt_blocks_total{tier="disk"}', "0x10 0+1x600"),),
    ),
    Alarm(
        "TerraceForgedFrames",
        "critical",
        _two(
            "tier",
            ("disk", _grew("terrace_disk_forged_frames_total", "1h")),
            ("object", _grew("terrace_object_forged_frames_total", "1h")),
        ),
        "> 0",
        "0m",
        "Whole frames lie where they do not belong, in the tier {{ $labels.tier }}",
        "With a key in use, a frame was whole and was not what its place says. They were misses.",
        "A backup that was restored in part does this: wipe that directory. Otherwise find out who "
        "may write there, and rotate the key if others may know it.",
        (("terrace_object_forged_frames_total", "0x10 0+1x600"),),
    ),
    Alarm(
        "TerraceQuarantined",
        "critical",
        f"max by ({EACH}) (terrace_shadow_quarantined)",
        "> 0",
        "0m",
        "A block that was computed anew differs from the stored one",
        "A sampled hit was computed all the same, and what came out differs from what Terrace had "
        "stored by more than computing in other pieces makes. Its own answer is right; answers "
        "that were given from the same block before may be wrong. Nothing is loaded or stored any "
        "more, after a restart neither, and what was stored is dropped, on disk too.",
        "`problems` in `terrace status --json` names the block, where both versions lie and the "
        "file that keeps it in force. Keep both versions, find out what is wrong "
        "([operations.md](operations.md#hits-that-are-checked) says where to look), then remove "
        "that file and restart the engine: its own cache may hold the block as well.",
        (("terrace_shadow_quarantined", "0x10 1x600"),),
    ),
    Alarm(
        "TerraceFailedLoads",
        "warning",
        f"{_grew(FAILED, '30m')} / {_grew('terrace_loads_total', '30m')}",
        "> 0.01",
        "10m",
        "{{ $value | humanizePercentage }} of the loads fail",
        "Blocks were promised to the engine and did not come, so it computed them late.",
        "Look for TerraceCorruptBlocks and TerraceDiskFailures beside it; `terrace status` names "
        "the tier. A rank that died fails its loads, too.",
        (
            (FAILED, "0+1x600"),
            ('terrace_loads_total{result="loaded"}', "0+9x600"),
        ),
    ),
    Alarm(
        "TerraceSlowLoads",
        "warning",
        f"{_grew('terrace_slow_loads_total', '30m')} / {_grew('terrace_loads_total', '30m')}",
        "> 0.1",
        "15m",
        "{{ $value | humanizePercentage }} of the loads take longer than computing",
        "The planner expected the tier to be sooner than it was. It learns: after some minutes it "
        "computes instead, and hits become fewer.",
        "See which tier is off on the dashboard Terrace / Planner. Then look at its device: "
        "another program that uses it, a drive that throttles, a network that is full.",
        (
            ("terrace_slow_loads_total", "0+1x600"),
            ('terrace_loads_total{result="loaded"}', "0+4x600"),
        ),
    ),
    Alarm(
        "TerracePlanRatioOff",
        "warning",
        f"max by ({EACH}, tier) ({MEDIAN})",
        "> 2",
        "30m",
        "Loads from {{ $labels.tier }} take {{ $value }} times as long as planned",
        "Half of the last fifty or so planned loads took more than twice as long as planned. The "
        "planner has not caught up, mostly as the tier's speed changes all the time.",
        "As TerraceSlowLoads. Where a device stays like that, keep the tier off it.",
        (('terrace_plan_ratio{tier="disk",fraction="0.5"}', "1x10 3x600"),),
    ),
    Alarm(
        "TerraceDiskFailures",
        "warning",
        _grew("terrace_disk_failures_total", "15m", f"{EACH}, op"),
        "> 0",
        "0m",
        "Requests of the disk tier fail: {{ $labels.op }}",
        "A device refused reads or writes. The directory is left alone after five in a row; the "
        "others go on.",
        "`terrace status` names the directory and its state; what each state asks for stands in "
        "[operations.md](operations.md#a-disk-that-is-not-well).",
        (('terrace_disk_failures_total{op="read"}', "0x10 0+1x600"),),
    ),
    Alarm(
        "TerraceDroppedOffloads",
        "warning",
        f"{_grew(DROPPED, '30m')} / ({_grew(DROPPED, '30m')} + {_grew(OFFLOADED, '30m')})",
        "> 0.2",
        "30m",
        "{{ $value | humanizePercentage }} of the blocks to be stored are dropped",
        "A queue or a pool is full, so computed blocks are not kept. Answers are right; later hits "
        "will be missing. What you have set (admission, write budget, mode) is left out.",
        "The panel Blocks dropped of Terrace / Faults names the queue. `host_slots`: raise "
        "`host.size`. `disk_write`: the device is too slow or not well. `object_write`: the "
        "shared store is.",
        (
            ('terrace_drop_blocks_total{queue="disk_write"}', "0+1x600"),
            (
                'terrace_transfer_blocks_total{op="offload",source="device",target="host"}',
                "0+2x600",
            ),
        ),
    ),
    Alarm(
        "TerraceHitRateCollapsed",
        "warning",
        f"sum by ({EACH}) (avg_over_time(terrace_hit_rate[15m])) / "
        f"(sum by ({EACH}) (avg_over_time(terrace_hit_rate[1d])) > 0.05)",
        "< 0.5",
        "15m",
        "The hit rate is {{ $value | humanizePercentage }} of the day's mean",
        "Terrace delivers less than half of what it did over the last day.",
        "The panel Misses by reason of Terrace / Overview says why. `other_namespace` or "
        "`never_stored` after a restart: a setting, the model or the engine's version changed; "
        "`terrace inspect` names the field. `evicted`: more space helps. `never_stored` alone: "
        "other requests come.",
        (('terrace_hit_rate{tier="host"}', "0.5x440 0x100"),),
    ),
    Alarm(
        "TerraceScrubFoundBadBlocks",
        "warning",
        _grew(SCRUBBED_BAD, "1h"),
        "> 0",
        "0m",
        "Scrubbing found blocks on disk that do not verify",
        "The disk gave back other bytes than were written, while nobody waited for them. The "
        "blocks were dropped.",
        "The log (`scrub=bad`) names file and offset. One block: watch. Many, or again and again: "
        "replace the device; the cache on it may be deleted at any time.",
        ((SCRUBBED_BAD, "0x10 0+1x600"),),
    ),
    Alarm(
        "TerraceWriteBudgetExhausted",
        "info",
        f"{_grew(BUDGET_DROPS, '6h')} / ({_grew(BUDGET_DROPS, '6h')} + {_grew(TO_DISK, '6h')})",
        "> 0.5",
        "1h",
        "Most blocks are not written to disk, as the write budget is used up",
        "`disk.write_budget` or `disk.dwpd` lets less be written than is computed. The disk is "
        "spared, as it was asked for, and hits from it become fewer.",
        "Set `disk.admission` = `reuse`, so that the budget goes to what is used twice; or raise "
        "the budget. See [operations.md](operations.md#wear).",
        ((BUDGET_DROPS, "0+3x600"), (TO_DISK, "0+1x600")),
    ),
    Alarm(
        "TerraceStoreFailures",
        "warning",
        f"{_grew('terrace_object_request_errors_total', '15m')} / "
        f"{_grew('terrace_object_requests_total', '15m')}",
        "> 0.1",
        "10m",
        "{{ $value | humanizePercentage }} of the requests to the shared store fail",
        "The store is not there, not allowed, or overloaded. After eight failures in a row it is "
        "left alone for five seconds at a time; requests do not wait for it.",
        "`terrace doctor` says what stands in the way: directory or bucket, credentials, an "
        "endpoint that does not answer. See "
        "[operations.md](operations.md#a-store-that-engines-share).",
        (
            ('terrace_object_request_errors_total{op="put"}', "0+1x600"),
            ('terrace_object_requests_total{op="put"}', "0+2x600"),
        ),
    ),
)
