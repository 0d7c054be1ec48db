"""Gathering the issues of a value's parts."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from trivet.conversion.errors import MAX_ISSUES, Issue, ValidationError

_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def step(key: object) -> str:
    """One step of a path: `.age`, `[2]`, or `["odd key"]`."""
    if isinstance(key, str):
        return f".{key}" if _NAME.fullmatch(key) else f"[{json.dumps(key)}]"
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
        self._issues += [Issue(prefix + issue.path, issue.message) for issue in issues]

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
