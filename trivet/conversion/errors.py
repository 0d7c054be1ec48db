"""What is wrong with a value, and where."""

from collections.abc import Iterable
from typing import Final

import attrs

from trivet.errors import TrivetError
from trivet.protocol.values import Value

MAX_ISSUES: Final = 20
"""The most issues that one error lists: enough to mend a form, too few to be a burden to send."""

MAX_PATH: Final = 256
MAX_TEXT: Final = 300
"""Characters of a path and of a message: what came from afar must not come back many times as long."""


def _cut(message: str) -> str:
    return message if len(message) <= MAX_TEXT else message[: MAX_TEXT - 3] + "..."


@attrs.frozen
class Issue:
    """One mistake. `path` leads from the value to it, in wire names: `.user.age`, `[2].name`, or "" for itself.

    A path of more than MAX_PATH characters has `...` in place of its middle, and a long message at its end.
    """

    path: str
    message: str = attrs.field(converter=_cut)

    def __str__(self) -> str:
        return f"{self.path.removeprefix('.')}: {self.message}" if self.path else self.message

    def prefixed(self, prefix: str) -> "Issue":
        """The same mistake as seen from further out."""
        path = prefix + self.path
        if len(path) > MAX_PATH:
            tail = self.path.rpartition("...")[2]
            path = f"{prefix}...{tail[-max(1, MAX_PATH - len(prefix) - 3) :]}"
        return Issue(path, self.message)


class ValidationError(TrivetError, ValueError):
    """A value that is not of its type. Lists every mistake that was found, at most MAX_ISSUES."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues: list[Issue] = list(issues)[:MAX_ISSUES]
        super().__init__(self.issues)

    def __str__(self) -> str:
        return "; ".join(map(str, self.issues))

    def prefixed(self, prefix: str) -> "ValidationError":
        """The same mistakes as seen from further out: `args[0]` and `.user.age` make `args[0].user.age`."""
        return ValidationError(issue.prefixed(prefix) for issue in self.issues)

    def as_metadata(self) -> list[Value]:
        """The issues as plain values, `[{"path": ..., "message": ...}]`, for an error's metadata."""
        return [{"path": issue.path, "message": issue.message} for issue in self.issues]
