"""How long the searches are: long enough and the same each time by default, ten times as long with TRIVET_LONG=1."""

import os
from typing import Final

from hypothesis import HealthCheck, Phase, settings

LONG: Final = bool(os.environ.get("TRIVET_LONG"))

SEARCH: Final = settings(
    deadline=None,  # a slow machine is no failure
    derandomize=not LONG,
    database=None,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],  # to explain a failure takes longer than to read it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
"""What all searches here have in common."""
