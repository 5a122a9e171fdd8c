"""What went wrong, and where to look."""

from __future__ import annotations

from dashboards.panel import BAD_IF_ANY, WARN_IF_ANY, Dashboard, areas, gain, lines, rate, stat

FAILED = 'terrace_loads_total{result="failed"}'
SCRUBBED_BAD = 'terrace_disk_scrub_blocks_total{result="bad"}'
FORGED_ON_DISK = f"sum({gain('terrace_disk_forged_frames_total')})"
FORGED_IN_STORE = f"sum({gain('terrace_object_forged_frames_total')})"

FAULTS = Dashboard(
    "faults",
    "Terrace / Faults",
    "What went wrong. A fault costs hits and no wrong answer, a quarantine apart; each panel says "
    "where to look.",
    (
        stat(
            "Poisoned engines",
            "none",
            "sum(terrace_poisoned)",
            "Only misses after a broken invariant. Restart that engine and report the log line "
            "`event=poisoned`.",
            BAD_IF_ANY,
        ),
        stat(
            "Canaries failed",
            "none",
            'sum(terrace_canaries_total{result="failed"})',
            "The engine's memory is not laid out as understood: nothing is served. Report it "
            "with the engine's version.",
            BAD_IF_ANY,
        ),
        stat(
            "Quarantined engines",
            "none",
            "sum(terrace_shadow_quarantined)",
            "A hit that was computed all the same came out other than stored: only misses, also "
            "after a restart. `terrace status` names the block, the evidence and the way out.",
            BAD_IF_ANY,
        ),
        stat(
            "Bad blocks found by scrubbing",
            "short",
            f"sum({gain(SCRUBBED_BAD)})",
            "They were dropped before a request met them. Many: look at the device; the log "
            "names file and offset.",
            BAD_IF_ANY,
        ),
        stat(
            "Disk failures",
            "short",
            f"sum({gain('terrace_disk_failures_total')})",
            "Requests of the disk tier that failed; `terrace status` names the directory and "
            "its state.",
            WARN_IF_ANY,
        ),
        stat(
            "Tokens not delivered",
            "short",
            f"sum({gain('terrace_failed_tokens_total')})",
            "Promised to the engine, then computed after all.",
            WARN_IF_ANY,
        ),
        stat(
            "Forged frames",
            "short",
            f"({FORGED_ON_DISK} + {FORGED_IN_STORE}) or {FORGED_ON_DISK} or {FORGED_IN_STORE}",
            "Whole frames where they do not belong: a backup restored in part, or somebody's "
            "purpose. Find out who can write there.",
            BAD_IF_ANY,
        ),
        lines(
            "Corrupt blocks by tier",
            "short",
            "Per second. disk, object: damage at rest. host: memory, look at its error counts.",
            (f"sum by (tier) ({rate('terrace_corrupt_blocks_total')})", "{{tier}}"),
        ),
        lines(
            "Loads that failed",
            "ops",
            "Per second; the engine computed what did not come.",
            (f"sum({rate(FAILED)})", "failed"),
        ),
        areas(
            "Blocks dropped, by queue",
            "short",
            "Not stored as something was full or in doubt. host_slots: host is too small or "
            "pinned. disk_write: the device is too slow. steps, step_bytes, copy_budget: a burst. "
            "mode, admission, write_budget: as you have set it.",
            (f"sum by (queue) ({rate('terrace_drop_blocks_total')})", "{{queue}}"),
        ),
        lines(
            "Disk requests that failed",
            "ops",
            "Blocks' requests, and all requests of the disk backend.",
            (f"sum by (op) ({rate('terrace_disk_failures_total')})", "blocks: {{op}}"),
            (f"sum by (op) ({rate('terrace_disk_io_errors_total')})", "backend: {{op}}"),
        ),
        lines(
            "Reads from disk that were refused",
            "ops",
            "Did not verify, other key, forged. Other key: name it in encryption.old_key_files.",
            (f"sum({rate('terrace_disk_corrupt_blocks_total')})", "corrupt"),
            (f"sum({rate('terrace_disk_locked_blocks_total')})", "other key"),
            (f"sum({rate('terrace_disk_forged_frames_total')})", "forged"),
        ),
        lines(
            "Scrubbing",
            "short",
            "Blocks per second, by what was found.",
            (f"sum by (result) ({rate('terrace_disk_scrub_blocks_total')})", "{{result}}"),
        ),
        lines(
            "Scrubbing: bytes",
            "Bps",
            "What scrubbing reads; bounded by disk.scrub_rate, and 0 while the disk is busy.",
            (f"sum({rate('terrace_disk_scrub_bytes_total')})", "read"),
        ),
        lines(
            "Scrubbing: passes",
            "none",
            "Passes that ended since the start. None for two weeks: the disk is never idle, or "
            "engines restart often; run `terrace scrub`.",
            ("sum(terrace_disk_scrub_passes_total)", "passes"),
        ),
        lines(
            "Found at the start",
            "none",
            "What the start found on disk: blocks taken over, records and fingerprints damaged. "
            "Damaged ones cost hits; many: look at the device.",
            ("sum(terrace_disk_adopted_blocks_total)", "blocks"),
            ("sum(terrace_disk_damaged_records_total)", "damaged records"),
            ("sum(terrace_disk_damaged_fingerprints_total)", "damaged fingerprints"),
        ),
        lines(
            "Shared store: requests that failed",
            "ops",
            "Failed, tried again as it was busy, and times that it was left alone. "
            "`terrace doctor` says what stands in the way.",
            (f"sum by (op) ({rate('terrace_object_request_errors_total')})", "{{op}}"),
            (f"sum({rate('terrace_object_retries_total')})", "tried again"),
            (f"sum({rate('terrace_object_rests_total')})", "left alone"),
        ),
        lines(
            "Shared store: blocks",
            "ops",
            "Verified, corrupt and forged. A corrupt pack has to be removed by hand; the status "
            "names it.",
            (f"sum by (op) ({rate('terrace_object_blocks_total')})", "{{op}}"),
            (f"sum({rate('terrace_object_corrupt_blocks_total')})", "corrupt"),
            (f"sum({rate('terrace_object_forged_frames_total')})", "forged"),
        ),
        lines(
            "Shared store: upkeep",
            "none",
            "Packs made to count as new again, and rounds of removing, in the time shown. "
            "Failed ones: credentials that may not put or delete.",
            (f"sum by (result) ({gain('terrace_object_touches_total')})", "touch: {{result}}"),
            (f"sum by (result) ({gain('terrace_object_gc_rounds_total')})", "round: {{result}}"),
        ),
        lines(
            "Ranks",
            "ops",
            "Reports of workers, and steps whose report never came. Refused or lost ones: a "
            "rank restarted or is another version; its log says which.",
            (f"sum by (result) ({rate('terrace_reports_total')})", "{{result}}"),
            (f"sum({rate('terrace_lost_steps_total')})", "lost steps"),
        ),
        lines(
            "Stray answers",
            "ops",
            "Ends of requests that nobody asked for: left out. Not 0: report it, with the disk "
            "backend or store that you use.",
            (f"sum({rate('terrace_disk_stray_completions_total')})", "disk"),
            (f"sum({rate('terrace_object_stray_answers_total')})", "shared store"),
        ),
        lines(
            "Checked hits",
            "short",
            "Blocks per second of hits that were computed all the same. beyond: not what was "
            "stored. skipped: not compared, as memory was short or the request ended.",
            (f"sum by (result) ({rate('terrace_shadow_blocks_total')})", "{{result}}"),
        ),
        lines(
            "Cost of checked hits",
            "short",
            "Per second: requests, tokens computed although a tier had them, bytes compared.",
            (f"sum({rate('terrace_shadow_requests_total')})", "requests"),
            (f"sum({rate('terrace_shadow_tokens_total')})", "tokens"),
            (f"sum({rate('terrace_shadow_bytes_total')})", "bytes"),
        ),
        lines(
            "Nearest to the noise floor",
            "percentunit",
            "The largest difference that passed as noise, over the floor. Near 100 %: the model is "
            "noisier than those measured; raise `shadow.tolerance` before a healthy engine stops.",
            ("max by (of) (terrace_shadow_floor_ratio)", "{{of}}"),
        ),
        lines(
            "Mode and health",
            "none",
            "Of each engine. mode: 0 on, 1 read-only, 2 paused. problems: 0 is health green; "
            "`terrace status` names them.",
            ("terrace_mode", "{{engine}} mode"),
            ("terrace_problems", "{{engine}} problems"),
            ("terrace_poisoned", "{{engine}} poisoned"),
        ),
        lines(
            "Blocks verified per second",
            "short",
            "Checksums taken in the device: every block that is served is verified.",
            (f"sum({rate('terrace_verified_blocks_total')})", "verified"),
        ),
    ),
)
