"""A search over seeds, and what is told of what it finds."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from random import Random
from typing import Final, TypeVar, cast

T = TypeVar("T")

LONG: Final = bool(os.environ.get("TRIVET_LONG"))

FACTOR: Final = 50
"""How much further a long search goes."""


class Found(AssertionError):
    """What broke, by the smallest input that still breaks it, and the seed that led there."""


def search(
    name: str,
    count: int,
    draw: Callable[[Random], Sequence[T]],
    attempt: Callable[[Sequence[T]], Iterable[str]],
    smaller: Callable[[T], Generator[T]],
) -> Counter[str]:
    """Try `count` inputs, the same each time, or far more with TRIVET_LONG=1; how often each outcome was seen.

    `smaller` are simpler forms of one part of an input. Raises Found.
    """
    outcomes: Counter[str] = Counter()
    for seed in range(count * FACTOR if LONG else count):
        parts = draw(Random(f"{name} {seed}"))
        try:
            outcomes.update(attempt(parts))
        except Exception as error:
            least, cause = _minimised(parts, attempt, smaller, error)
            shown = "\n".join(map(repr, least))
            raise Found(
                f"seed {name} {seed}, with the {len(least)} of {len(parts)} parts that it takes:\n{shown}"
            ) from cause
    return outcomes


def _minimised(
    parts: Sequence[T],
    attempt: Callable[[Sequence[T]], Iterable[str]],
    smaller: Callable[[T], Generator[T]],
    error: Exception,
) -> tuple[Sequence[T], Exception]:
    """The simplest input on a greedy way down that fails in the same way, and how it failed."""
    failure = _kind(error)
    tries = 0

    def candidates() -> Generator[Sequence[T]]:
        for index, part in enumerate(parts):
            if len(parts) > 1:
                yield [*parts[:index], *parts[index + 1 :]]
            for other in smaller(part):
                yield [*parts[:index], other, *parts[index + 1 :]]

    while tries < 500:
        for candidate in candidates():
            tries += 1
            try:
                tuple(attempt(candidate))
            except Exception as again:
                if _kind(again) == failure:
                    parts, error = candidate, again
                    break
        else:
            break
    return parts, error


def _kind(error: BaseException) -> type[BaseException]:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return type(error)


def without_one(sequence: Sequence[T]) -> Generator[Sequence[T]]:
    """The sequences that lack one element."""
    for index in range(len(sequence)):
        yield [*sequence[:index], *sequence[index + 1 :]]
