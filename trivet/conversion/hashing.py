"""Sets and dicts of what came from afar: Python hashes numbers without a secret, so that a peer can choose hashes."""

from collections.abc import Callable, Mapping
from typing import Any

from trivet.conversion.errors import ValidationError
from trivet.conversion.leaves import Hook, invalid
from trivet.protocol import compat


def set_maker(make: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Makes sets of what can be in one."""

    def make_set(items: list[Any]) -> Any:
        try:
            if compat.collide(items):
                raise invalid("the items of the set have one hash")
            return make(items)
        except TypeError as error:
            raise invalid(f"an item cannot be in a set: {error}") from None

    return make_set


def check_hashes(key: Hook, value: Mapping[str, Any]) -> None:
    """Raise for an object whose keys were chosen to have one hash, once they are more than texts."""
    if len(value) <= compat.FREE_MEMBERS:
        return
    keys: list[Any] = []
    for name in value:
        try:
            keys.append(key(name))
        except ValidationError:
            pass  # found again, with its place
    if compat.collide(keys):
        raise invalid("the keys of the object have one hash")
