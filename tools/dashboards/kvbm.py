"""KVBM's own board, for who comes from there: its panels, by its names."""

from __future__ import annotations

from dashboards.panel import Dashboard, Panel, lines

SET = "Empty unless metrics.kvbm_names is set."


def _panel(title: str, unit: str, name: str, help_text: str) -> Panel:
    """Raw values, as KVBM's board shows them, of whichever prefix is exported."""
    query = f"kvbm_{name} or dynamo_kvbm_{name}"
    return lines(title, unit, f"{help_text} {SET}", (query, "{{instance}} {{engine}}"))


KVBM = Dashboard(
    "kvbm",
    "Terrace / KVBM's names",
    "The panels of KVBM's board, by KVBM's names: for who comes from there, and to compare. "
    "Counters are shown as they stand, since the engine's start. The other boards say more.",
    (
        _panel(
            "Matched Tokens",
            "short",
            "matched_tokens",
            "Tokens of loads that the engine accepted. Flat while requests come: see Misses by "
            "reason in Terrace / Overview.",
        ),
        _panel(
            "Host Cache Hit Rate",
            "percentunit",
            "host_cache_hit_rate",
            "Blocks from host, of those asked for beyond the engine's own hit.",
        ),
        _panel(
            "Disk Cache Hit Rate",
            "percentunit",
            "disk_cache_hit_rate",
            "Blocks from disk, of those asked for beyond the engine's own hit. With the host's it "
            "makes the whole.",
        ),
        _panel(
            "Offload Blocks - Device to Host",
            "short",
            "offload_blocks_d2h",
            "Blocks sealed in host: counted when they are there, not when they are sent.",
        ),
        _panel(
            "Offload Blocks - Host to Disk",
            "short",
            "offload_blocks_h2d",
            "Blocks sealed on disk. Far below those sealed in host: disk.admission or a write "
            "budget refuses them, see Terrace / Tiers.",
        ),
        _panel(
            "Offload Blocks - Device to Disk (Bypass Host)",
            "short",
            "offload_blocks_d2d",
            "Always 0: with disk alone, too, blocks pass through a small host pool.",
        ),
        _panel(
            "Onboard Blocks - Host to Device",
            "short",
            "onboard_blocks_h2d",
            "Blocks from host, verified in the device.",
        ),
        _panel(
            "Onboard Blocks - Disk to Device",
            "short",
            "onboard_blocks_d2d",
            "Blocks from disk, verified in the device.",
        ),
    ),
)
