"""Load or compute: plans and forecasts."""

from __future__ import annotations

from dashboards.panel import WARN_IF_ANY, Dashboard, gain, lines, rate, stat

NOT_WORTH_IT = 'terrace_miss_blocks_total{reason="not_worth_it"}'
LATE = 'terrace_miss_blocks_total{reason="late"}'

PLANNER = Dashboard(
    "planner",
    "Terrace / Planner",
    "Load or compute: were the plans right, and would more space pay?",
    (
        stat(
            "Actual / planned time",
            "short",
            'max(terrace_plan_ratio{fraction="0.5"})',
            "Median of the worst tier; 1 = as planned, 0 = no planned load yet. Above 2: that "
            "tier is slower than it was; look at its device.",
            ((0.0, "green"), (2.0, "orange"), (4.0, "red")),
        ),
        stat(
            "Slow loads",
            "percentunit",
            f"sum({gain('terrace_slow_loads_total')}) / sum({gain('terrace_loads_total')})",
            "Share of loads that took longer than computing would have. Above a tenth: see "
            "which tier is off in Actual / planned time by tier.",
            ((0.0, "green"), (0.1, "orange")),
        ),
        stat(
            "Loads given up",
            "short",
            f"sum({gain('terrace_abandoned_loads_total')})",
            "What was missing was computed. A few are the price of not waiting; many: as Slow "
            "loads.",
            WARN_IF_ANY,
        ),
        stat(
            "Not worth it",
            "percentunit",
            f"sum({gain(NOT_WORTH_IT)}) / sum({gain('terrace_miss_blocks_total')})",
            "Of the misses, those that lay in a tier and were cheaper to compute. Near 1: the "
            "tier below host is too slow for this model.",
        ),
        stat(
            "Twice the host would hold",
            "percentunit",
            'avg(terrace_forecast_hit_ratio{tier="host",factor="2"})',
            "Share of all blocks asked for, the engine's own hits included. Compare it with "
            "factor 1 below.",
        ),
        stat(
            "Twice the disk would hold",
            "percentunit",
            'avg(terrace_forecast_hit_ratio{tier="disk",factor="2"})',
            "The same of host as it is and a disk of twice its size.",
        ),
        lines(
            "Actual / planned time by tier",
            "short",
            "Median and ninth tenth of the last fifty or so planned loads. A tier above 2 for "
            "long is believed less until its loads keep their time again.",
            ("max by (tier, fraction) (terrace_plan_ratio)", "{{tier}} {{fraction}}"),
        ),
        lines(
            "Loads: ended, slow, given up",
            "ops",
            "Per second. Slow ones should be few beside all.",
            (f"sum({rate('terrace_loads_total')})", "all"),
            (f"sum({rate('terrace_slow_loads_total')})", "slow"),
            (f"sum({rate('terrace_abandoned_loads_total')})", "given up"),
        ),
        lines(
            "Computed though it was there",
            "short",
            "Blocks per second that lay in a tier and were not worth a load, or came too late.",
            (f"sum({rate(NOT_WORTH_IT)})", "not worth it"),
            (f"sum({rate(LATE)})", "late"),
        ),
        lines(
            "Late",
            "ops",
            "Look-ups that ended at lookup.deadline, reads that missed theirs. Rising: the disk "
            "is busier than it can be; see Terrace / Tiers.",
            (f"sum({rate('terrace_late_lookups_total')})", "look-ups"),
            (f"sum({rate('terrace_disk_late_reads_total')})", "disk reads"),
        ),
        lines(
            "Offered and delivered",
            "short",
            "Tokens per second of loads that the engine accepted, delivered, and not delivered.",
            (f"sum({rate('terrace_match_tokens_total')})", "accepted"),
            (f"sum({rate('terrace_hit_tokens_total')})", "delivered"),
            (f"sum({rate('terrace_failed_tokens_total')})", "failed"),
        ),
        lines(
            "Hints of clients",
            "reqps",
            "Requests per second whose client said so; ignored: what was no hint, or at odds with "
            "another. Many ignored: the log names one a minute; tell that client.",
            (f"sum by (hint) ({rate('terrace_hints_total')})", "{{hint}}"),
            (f"sum({rate('terrace_ignored_hints_total')})", "ignored"),
        ),
        lines(
            "Answers by ending",
            "reqps",
            "Requests that ended, by how. All unknown: this engine does not say, and eviction does "
            "without.",
            (f"sum by (ending) ({rate('terrace_answers_total')})", "{{ending}}"),
        ),
        lines(
            "Forecast: host of other sizes",
            "percentunit",
            "What host would hold of the blocks asked for, by its size over today's. Lines far "
            "apart: more memory pays. On each other: it does not.",
            ('avg by (factor) (terrace_forecast_hit_ratio{tier="host"})', "{{factor}} x"),
        ),
        lines(
            "Forecast: disk of other sizes",
            "percentunit",
            "The same for the disk, together with host as it is.",
            ('avg by (factor) (terrace_forecast_hit_ratio{tier="disk"})', "{{factor}} x"),
        ),
        lines(
            "Requests left out of the forecast",
            "reqps",
            "Too many waited; the forecast is of the others. Nothing else suffers.",
            (f"sum({rate('terrace_forecast_dropped_requests_total')})", "left out"),
        ),
    ),
)
