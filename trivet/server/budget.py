"""What clients may have the server hold of their own: bodies of requests, and raw messages that nobody has received."""

from typing import Final, Self, final

from trivet.server.http import HttpError

# Of the whole, what one address may have of it: 1 / this.
_ADDRESSES: Final = 4


@final
class Budget:
    """Bytes for all connections of a server together, and a part of them at most for those of one address."""

    __slots__ = ("_left", "_of_one", "_taken")

    def __init__(self, size: int) -> None:
        self._left = size
        self._of_one: Final = size // _ADDRESSES
        self._taken: Final[dict[str, int]] = {}

    def take(self, size: int, owner: str | None) -> None:
        """For an address, None for an unlimited one. Raises HttpError, and takes nothing, where there is no room."""
        if size > self._left:
            raise HttpError(503, "guard", "service_unavailable", "The server has too much to hold", close=True)
        if owner is not None:
            taken = self._taken.get(owner, 0) + size
            if taken > self._of_one:
                raise HttpError(429, "guard", "rate_limit", "Too much to hold from this address", close=True)
            self._taken[owner] = taken
        self._left -= size

    def give_back(self, size: int, owner: str | None) -> None:
        """What was taken is free again."""
        self._left += size
        if owner is not None:
            self._taken[owner] -= size
            if not self._taken[owner]:
                del self._taken[owner]


@final
class Share:
    """What one connection has of a budget, until it is left. Little needs none: the great cannot shut it out."""

    __slots__ = ("_budget", "_free", "_owner", "_taken")

    def __init__(self, budget: Budget, free: int) -> None:
        self._budget: Final = budget
        self._free: Final = free
        self._owner: str | None = None
        self._taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hold(0)

    def charge_to(self, owner: str | None) -> None:
        """Whose it is from now on, None for one that is not limited. While nothing is held."""
        assert not self._taken
        self._owner = owner

    def hold(self, size: int) -> None:
        """So much is held now, in bytes. Raises HttpError, and has what it had, where there is no room for more."""
        more = max(0, size - self._free) - self._taken
        if more > 0:
            self._budget.take(more, self._owner)
        elif more < 0:
            self._budget.give_back(-more, self._owner)
        self._taken += more
