"""Gathering the issues of a value's parts."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from trivet.conversion.errors import MAX_ISSUES, Issue, ValidationError

_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_MAX_STEP: Final = 64
"""Characters of one step. Keys may come from afar, and be as long as messages."""


def step(key: object) -> str:
    """One step of a path: `.age`, `[2]`, or `["odd key"]`."""
    if isinstance(key, str):
        long = len(key) >= _MAX_STEP
        if not long and _NAME.fullmatch(key):
            return f".{key}"
        text = json.dumps(key[:_MAX_STEP])
        return f"[{text}]" if not long and len(text) < _MAX_STEP else f'[{text[: _MAX_STEP - 6]}..."]'
    return f"[{key}]"


class Gathering:
    """Converts parts of a value one by one; the mistakes of all of them make one error."""

    def __init__(self) -> None:
        self._issues: list[Issue] = []

    @property
    def full(self) -> bool:
        return len(self._issues) >= MAX_ISSUES

    def convert(self, hook: Callable[[Any], Any], value: Any, key: object) -> Any:
        """The converted part, or None after a mistake."""
        try:
            return hook(value)
        except ValidationError as error:
            self.add(error.issues, step(key))

    def add(self, issues: Iterable[Issue], prefix: str = "") -> None:
        self._issues += [issue.prefixed(prefix) for issue in issues]

    def check(self) -> None:
        """Raise what was gathered, if anything."""
        if self._issues:
            raise ValidationError(self._issues)


def convert_items(hook: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """All items converted, or the mistakes of all."""
    gathering = Gathering()
    converted: list[Any] = []
    for index, value in enumerate(values):
        converted.append(gathering.convert(hook, value, index))
        if gathering.full:
            break
    gathering.check()
    return converted
