"""The order in which Trio runs its tasks, made a function of a seed: for this Trio has no public name.

Trio shuffles the tasks that can run, by a random generator of its own. Once Hypothesis is imported it sorts them first,
so that the order depends on the generator alone; and Hypothesis seeds the generator with the same number for each
example, so that without another seed every example of a test would see one and the same schedule.
"""

from random import Random

from trio._core import _run


def seed_scheduler(seed: int) -> None:
    """From now on the order of tasks is a function of `seed`. Raises RuntimeError where this Trio cannot be seeded."""
    scheduler: object = getattr(_run, "_r", None)
    if not isinstance(scheduler, Random):
        raise RuntimeError(
            "this version of Trio keeps its scheduler's random generator elsewhere: trivet.testing cannot seed it"
        )
    scheduler.seed(seed)
