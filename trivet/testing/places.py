"""The methods of the runtime and the client through which everything passes that the kit takes down.

They are no public names, so each of them is here, with its parameters, and a test holds the table against the code.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

import attrs

from trivet.client.calls import Calls
from trivet.client.listeners import Listeners
from trivet.runtime.emit import Emitter


@attrs.frozen
class Place:
    """A method that is wrapped, for one object at a time. `given`: it is handed to the objects, and not the class's."""

    owner: type[object]
    name: str
    parameters: str
    given: bool = False

    def __str__(self) -> str:
        return f"{self.owner.__module__}.{self.owner.__qualname__}.{self.name}({self.parameters})"

    def check(self, method: object) -> None:
        """Raise RuntimeError, naming the place, when its method, bound or not, is None or takes something else."""
        complaint = f"trivet.testing takes down what passes through {self}, "
        if not callable(method):
            raise RuntimeError(f"{complaint}and there is no such method")
        parameters = ", ".join(name for name in inspect.signature(method).parameters if name != "self")
        if parameters != self.parameters:
            raise RuntimeError(f"{complaint}which takes ({parameters})")


PLACES: Final = (
    # An actor's events, as they are emitted.
    Place(Emitter, "broadcast", "event, args, exclude, where"),
    Place(Emitter, "publish", "event, args, exclude, where, timeout"),
    Place(Emitter, "send", "session, event, args"),
    Place(Emitter, "publish_to", "session, event, args, timeout"),
    # What a client asks, and what arrives there.
    Place(Calls, "send", "key, pending, ended"),
    Place(Calls, "answer", "key, output, error"),
    Place(Listeners, "dispatch", "name, payload"),
    Place(Listeners, "mark", "listeners, reason"),
    Place(Listeners, "refuse", "name, error"),
    # Given to Listeners by their conversation.
    Place(Listeners, "_subscribe", "name, wanted", given=True),
)


def check_places() -> None:
    """Raise RuntimeError, naming the place, when one of them is gone or takes something else."""
    for place in PLACES:
        if not place.given:
            place.check(getattr(place.owner, place.name, None))


def wrap(target: object, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method of one object by what `make` makes of it. Raises RuntimeError as `Place.check` does."""
    place = next(place for place in PLACES if place.name == name and isinstance(target, place.owner))
    method = getattr(target, name, None)
    place.check(method)
    assert method is not None
    setattr(target, name, make(method))
