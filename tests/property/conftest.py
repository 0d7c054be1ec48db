"""How long the search is: short and the same each time by default, long and different with TRIVET_LONG=1."""

import os

from hypothesis import HealthCheck, settings

_COMMON = settings(
    deadline=None,  # a slow machine is no failure
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

settings.register_profile("short", _COMMON, max_examples=300, stateful_step_count=40, derandomize=True, database=None)
settings.register_profile("long", _COMMON, max_examples=20_000, stateful_step_count=80)
if settings.get_current_profile_name() in ("default", "ci"):  # a profile from the command line comes first
    settings.load_profile("long" if os.environ.get("TRIVET_LONG") else "short")
