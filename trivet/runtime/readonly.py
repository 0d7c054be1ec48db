"""A read-only view of an actor's state, for `on_state_change`."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeAlias

from trivet.errors import PublicError

_PLAIN: tuple[type, ...] = (str, bytes, int, float, complex, bool, type(None), frozenset)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise PublicError("actor", "state_mutation_reentrant", "State cannot be changed inside on_state_change.")


class _List(list[Any]):
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse


class _Dict(dict[Any, Any]):
    pop = popitem = clear = update = setdefault = _refuse  # pyright: ignore[reportAssignmentType]
    __setitem__ = __delitem__ = __ior__ = _refuse


class _Set(set[Any]):
    add = remove = discard = pop = clear = update = _refuse
    intersection_update = difference_update = symmetric_difference_update = _refuse
    __ior__ = __iand__ = __isub__ = __ixor__ = _refuse


class _Object:
    """An object whose attributes can be read, as views of their own, and not set."""

    __slots__ = ("_target",)

    def __init__(self, target: object) -> None:
        object.__setattr__(self, "_target", target)

    @property  # type: ignore[misc]  # so that isinstance() and match see the class of the state
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        target: Any = object.__getattribute__(self, "_target")
        return target.__class__  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        target = object.__getattribute__(self, "_target")
        value = getattr(target, name)
        bound_to = getattr(value, "__self__", None)
        if bound_to is target and hasattr(value, "__func__"):
            return value.__func__.__get__(self)  # a method of the state class sees the view, too
        return view(value)

    __setattr__ = __delattr__ = _refuse

    def __eq__(self, other: object) -> bool:
        return bool(object.__getattribute__(self, "_target") == other)

    __hash__ = None  # type: ignore[assignment]  # a view of something mutable

    def __repr__(self) -> str:
        return repr(object.__getattribute__(self, "_target"))


View: TypeAlias = Any


def view(value: Any) -> View:
    """`value`, with every way to change it at any depth raising `actor.state_mutation_reentrant`."""
    make = _VIEWS.get(value.__class__)
    if make is not None:
        return make(value)
    return value if isinstance(value, _PLAIN) else _Object(value)


_VIEWS: Final[Mapping[object, Callable[[Any], Any]]] = {
    list: lambda value: _List(map(view, value)),
    dict: lambda value: _Dict(zip(value, map(view, value.values()), strict=True)),
    set: _Set,
    tuple: lambda value: tuple(map(view, value)),
}
