"""All dashboards, in the order in which somebody reads them."""

from __future__ import annotations

from dashboards.faults import FAULTS
from dashboards.kvbm import KVBM
from dashboards.overview import OVERVIEW
from dashboards.planner import PLANNER
from dashboards.tiers import TIERS

ALL = (OVERVIEW, TIERS, PLANNER, FAULTS, KVBM)
