"""What pytest is told before it reads the tests."""

from hypothesis import HealthCheck, settings

# The same examples in every run, and on a machine that is busy with all the others: a new one that fails is for whoever
# looks for it (`--hypothesis-profile default`), not for a change that has nothing to do with it.
settings.register_profile(
    "steady", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")
