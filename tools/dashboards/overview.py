"""The first dashboard: is it well, and what does it spare."""

from __future__ import annotations

from dashboards.panel import (
    BAD_IF_ANY,
    WARN_IF_ANY,
    Dashboard,
    areas,
    gain,
    lines,
    mean,
    quantile,
    rate,
    stat,
)

MODES = {0: "on", 1: "read-only", 2: "paused", 3: "observe"}
FAILED = 'terrace_loads_total{result="failed"}'

OVERVIEW = Dashboard(
    "overview",
    "Terrace / Overview",
    "Is it well, and what does it spare? Start here; the others say where and why.",
    (
        stat(
            "Engines",
            "none",
            "count(terrace_mode)",
            "Engines that answer. Fewer than you run: that engine passes through (its log says "
            "why) or its socket is not reached; run `terrace status` on its machine.",
        ),
        stat(
            "Mode",
            "none",
            "max(terrace_mode)",
            "The most restrictive mode of the chosen engines. Paused or read-only by mistake: "
            "`terrace resume`.",
            ((0.0, "green"), (1.0, "orange")),
            MODES,
        ),
        stat(
            "Hit rate",
            "percentunit",
            "avg(sum by (instance, engine) (terrace_hit_rate))",
            "Of the blocks asked for beyond the engine's own hits, the share that Terrace "
            "delivered of late. Low: see Misses by reason.",
        ),
        stat(
            "Tokens not computed",
            "short",
            f"sum({gain('terrace_hit_tokens_total')})",
            "Prompt tokens that came from a tier instead of being computed, in the time shown.",
        ),
        stat(
            "Failed loads",
            "short",
            f"sum({gain(FAILED)})",
            "Loads promised to the engine and not delivered; the engine computed them. Not 0: "
            "look at Terrace / Faults.",
            WARN_IF_ANY,
        ),
        stat(
            "Corrupt blocks",
            "short",
            f"sum({gain('terrace_corrupt_blocks_total')})",
            "Blocks that did not verify. Each was a miss, never a wrong answer. Not 0: find the "
            "tier in Terrace / Faults, then check that device.",
            BAD_IF_ANY,
        ),
        lines(
            "Hit rate by tier",
            "percentunit",
            "What each tier delivers of what the engine does not have itself. Host falls while "
            "disk rises: host is too small, see the forecast in Terrace / Planner.",
            ("avg by (tier) (terrace_hit_rate)", "{{tier}}"),
        ),
        areas(
            "Tokens from tiers per second",
            "short",
            "Tokens verified in the device. It follows the requests; no tokens beside many "
            "requests: see Misses by reason.",
            (f"sum by (tier) ({rate('terrace_hit_tokens_total')})", "{{tier}}"),
        ),
        lines(
            "Prompt tokens per second",
            "short",
            "Of requests that ended: all, and those the engine's own cache had. What lies between "
            "is for Terrace to find; `terrace advise` tells which sizes find more.",
            (f"sum({rate('terrace_prompt_tokens_total')})", "asked for"),
            (f"sum({rate('terrace_engine_hit_tokens_total')})", "the engine's own"),
        ),
        areas(
            "Misses by reason",
            "short",
            "Blocks per second. never_stored: new text. evicted: more space helps. "
            "not_worth_it: the planner computes, see Terrace / Planner. other_namespace: "
            "another model or setting, `terrace inspect` names the field. shadow: a hit that is "
            "checked. corrupt, late, dropped, quarantined: see Terrace / Faults.",
            (f"sum by (reason) ({rate('terrace_miss_blocks_total')})", "{{reason}}"),
        ),
        lines(
            "Requests per second",
            "reqps",
            "Requests that asked for a look-up, and those that carry something that cannot be "
            "keyed. Many of the latter: docs/support.md says which these are.",
            (f"sum({rate('terrace_requests_total')})", "requests"),
            (f"sum({rate('terrace_unkeyable_requests_total')})", "unkeyable"),
        ),
        lines(
            "Loads per second",
            "ops",
            "Loads that ended. Failed ones: see Terrace / Faults.",
            (f"sum by (result) ({rate('terrace_loads_total')})", "{{result}}"),
        ),
        lines(
            "Time of a load",
            "s",
            "Mean time in which the ranks copied and verified. Rising beside steady bytes: the "
            "machine's memory or CPUs are busy elsewhere.",
            (mean("terrace_load_seconds"), "mean"),
        ),
        lines(
            "Time of copies out",
            "percentunit",
            "Share of the time in which ranks copied blocks to host: at most offload.time_share, "
            "but for bursts. There, blocks are dropped (copy_budget, Terrace / Faults).",
            (f"sum by (instance) ({rate('terrace_offload_seconds_sum')})", "{{instance}}"),
        ),
        lines(
            "Time of a step's copies out",
            "s",
            "Mean time in which the slowest rank copied what one engine step stored.",
            (mean("terrace_offload_seconds"), "mean"),
        ),
        lines(
            "Time of a look-up",
            "s",
            "From a request's first question to the answer. Rising: the tier below host is slow or "
            "busy, or lookup.deadline is what ends them.",
            (quantile("0.5", "terrace_lookup_seconds"), "half take at most"),
            (quantile("0.99", "terrace_lookup_seconds"), "99 of 100"),
            (mean("terrace_lookup_seconds"), "mean"),
        ),
        lines(
            "Time to load",
            "s",
            "Of loads that ended, from the decision to the last block in the device. Above what "
            "computing takes: see Terrace / Planner.",
            (quantile("0.5", "terrace_onboard_seconds"), "half take at most"),
            (quantile("0.99", "terrace_onboard_seconds"), "99 of 100"),
            (mean("terrace_onboard_seconds"), "mean"),
        ),
        lines(
            "Bytes moved",
            "Bps",
            "Payload that arrived, by way.",
            (
                f"sum by (op, source, target) ({rate('terrace_transfer_bytes_total')})",
                "{{op}} {{source}} to {{target}}",
            ),
        ),
        lines(
            "Under way",
            "short",
            "What the engines have begun. Steps that pile up: a rank does not report, look "
            "whether its process runs.",
            ("sum(terrace_active_requests)", "requests"),
            ("sum(terrace_steps_in_flight)", "steps"),
            ("sum(terrace_waiting_pins)", "pinned slots"),
        ),
        lines(
            "Time until events are taken",
            "s",
            "From the event descriptor's being readable to the engine's coming for them. Rising: "
            "the engine steps seldom, or its thread is busy.",
            (quantile("0.99", "terrace_event_lag_seconds"), "99 of 100"),
            (mean("terrace_event_lag_seconds"), "mean"),
        ),
    ),
)
