"""How the actors of a class, or of a registry, behave: their timeouts, what is saved when, when they sleep."""

from typing import Any, Literal, TypeAlias, get_args

import attrs

Durability: TypeAlias = Literal["gated", "interval", "none"]


def _seconds(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{attribute.name}={value!r}: use a number of seconds, or None")
    if not value > 0:
        raise ValueError(f"{attribute.name}={value!r}: use a number above 0, or None")


def _count(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{attribute.name}={value!r}: use an int, or None")
    if not value > 0:
        raise ValueError(f"{attribute.name}={value!r}: use a number above 0, or None")


def _flag(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{attribute.name}={value!r}: use True, False or None")


def _durability(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and value not in get_args(Durability):
        known = ", ".join(map(repr, get_args(Durability)))
        raise ValueError(f"{attribute.name}={value!r}: use one of {known}, or None")


@attrs.frozen(kw_only=True)
class Options:
    """Behaviour of an actor class, or the defaults of a registry. None means: what the registry or Limits say.

    `concurrent`: every action neither takes nor waits for the actor's turn. `strict`: only declared events may be
    emitted or subscribed to, and every emit is checked, with or without a recipient: recommended in tests.

    `durability` says when what an actor does is saved, with a store that survives its process. "gated" (default):
    nobody sees an effect before it is saved. "interval": within a second of the change, whoever has seen it. "none":
    when the actor goes to sleep, and where it calls `save`. `state_version` counts up with each change of the state's
    class that `on_migrate` sees to. `sleep_after` seconds without anything to do the actor goes to sleep (math.inf:
    never); any connection keeps it awake, unless `sleep_with_connections`. `shutdown_grace` seconds after the actor was
    asked to sleep or end, what has not finished is cut off (default, and at most at a stop of the server: that of
    Limits).

    Raises ValueError for a number that is not above 0 and for another durability, TypeError for what is no number.
    """

    action_timeout: float | None = attrs.field(default=None, validator=_seconds)
    connect_hook_timeout: float | None = attrs.field(default=None, validator=_seconds)
    concurrent: bool | None = attrs.field(default=None, validator=_flag)
    strict: bool | None = attrs.field(default=None, validator=_flag)
    durability: Durability | None = attrs.field(default=None, validator=_durability)
    state_version: int | None = attrs.field(default=None, validator=_count)
    sleep_after: float | None = attrs.field(default=None, validator=_seconds)
    sleep_with_connections: bool | None = attrs.field(default=None, validator=_flag)
    shutdown_grace: float | None = attrs.field(default=None, validator=_seconds)

    def over(self, defaults: "Options") -> "Options":
        """These options, with the gaps filled from `defaults`."""
        own = {name: value for name, value in attrs.asdict(self).items() if value is not None}
        return attrs.evolve(defaults, **own)
