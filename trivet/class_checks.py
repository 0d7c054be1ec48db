"""What an actor class must not look like: mistakes that would otherwise be seen late, or never."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, Final, cast, get_origin

from trivet.actor import HOOKS, Action, Actor
from trivet.errors import DefinitionError
from trivet.event import Event
from trivet.options import Options

_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "create_state": ("input",),
    "on_create": ("input",),
    "on_migrate": ("is_new",),
    "on_wake": (),
    "run": (),
    "on_sleep": (),
    "on_destroy": (),
    "on_before_connect": ("params",),
    "create_conn_state": ("params",),
    "on_connect": ("conn",),
    "on_disconnect": ("conn",),
    "on_state_change": (),
    "on_before_action_response": ("name", "args", "output"),
    "on_request": ("request",),
    "on_websocket": ("websocket",),
}
"""What each hook is called with, beside self."""

_ELSEWHERE: Final[Mapping[str, str]] = {
    "create_vars": "plain attributes are an actor's variables: set them in on_wake",
    "on_start": "use on_wake",
    "on_stop": "use on_destroy",
}
"""Hooks that RivetKit has, or had, and trivet has not."""

# As alike as `on_conect` and `on_connection` are to `on_connect`.
_ALIKE: Final = 0.85


def check_class(cls: type[Any], members: Mapping[str, Any]) -> None:
    """Raise DefinitionError for a class that cannot work as its author meant it, saying what to do."""
    name = cls.__name__
    if not isinstance(cls.options, Options):
        raise DefinitionError(f"{name}.options is {cls.options!r}; write options = trivet.Options(...)")
    if not _takes(cls.__init__, (cls,)):
        raise DefinitionError(
            f"{name}.__init__ has required parameters, but trivet makes instances itself, with none;"
            " take what comes from outside in create_state(self, input)"
        )
    known = frozenset(vars(Actor))
    for attribute, member in members.items():
        where = f"{name}.{attribute}"
        if isinstance(member, Action):
            found = cast("Action[Any, Any, Any, Any]", member)  # type: ignore[redundant-cast]  # pyright infers unknowns
            _check_action(where, attribute, found.fn)
        elif isinstance(member, Event):
            if member.subscribe_hook is not None and not _takes(member.subscribe_hook, (cls, cls)):
                raise DefinitionError(f"{where}: its can_subscribe takes (self, conn), and nothing else is given")
        elif member is Event or get_origin(member) is Event:
            raise DefinitionError(f"{where} is the class Event and no event; call it: Event(...)")
        elif attribute in HOOKS:
            _check_hook(where, attribute, cls, member)
        elif attribute not in known and isinstance(member, (FunctionType, staticmethod, classmethod)):
            _check_misspelt(where, attribute)


def _check_action(where: str, attribute: str, fn: Any) -> None:
    if attribute in HOOKS:
        raise DefinitionError(f"{where} is a hook, and clients cannot call hooks; take @action away, or rename it")
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    if first is None or first.kind not in positional:
        raise DefinitionError(f"{where}: an action is a method; give it self as its first parameter")


def _check_hook(where: str, hook: str, cls: type[Any], member: Any) -> None:
    if member is vars(Actor).get(hook):
        return
    if hasattr(member, "__get__"):
        member = member.__get__(cls, cls)
    parameters = _PARAMETERS[hook]
    if not callable(member) or not _takes(member, parameters):
        raise DefinitionError(f"{where} is a hook; declare it as def {hook}({', '.join(('self', *parameters))})")


def _check_misspelt(where: str, attribute: str) -> None:
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", attribute).lower()
    if snake in _ELSEWHERE and snake not in HOOKS:
        raise DefinitionError(f"{where} is not a hook of trivet, and would never run: {_ELSEWHERE[snake]}")
    meant = [hook for hook in HOOKS if hook.replace("_", "") == snake.replace("_", "")]
    if not meant and snake.startswith(("on_", "create_")):
        meant = difflib.get_close_matches(snake, HOOKS, 1, _ALIKE)
    if meant:
        raise DefinitionError(
            f"{where} is not a hook; did you mean {meant[0]}? If not, a name less like it tells them apart"
        )


def _takes(fn: Any, args: Iterable[object]) -> bool:
    """Whether `fn` can be called with these positional arguments."""
    try:
        inspect.signature(fn).bind(*args)
    except (TypeError, ValueError):  # ValueError: a method without self
        return False
    return True
