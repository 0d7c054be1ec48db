"""The state of one actor, and whether it has changed."""

from typing import Any

from trivet.conversion import StateCodec
from trivet.errors import PublicError
from trivet.runtime.readonly import view


class State:
    """Holds what `self.state` is. Without a codec the actor has none."""

    def __init__(self, codec: StateCodec | None) -> None:
        self._codec = codec
        self.value: Any = None
        self._known = b""

    def read(self, *, readonly: bool) -> Any:
        """The state, or a view of it. Raises PublicError `actor.state_not_enabled`."""
        if self._codec is None:
            raise PublicError("actor", "state_not_enabled", "This actor has no state: give its class a state type.")
        return view(self.value) if readonly else self.value

    def write(self, value: Any, *, readonly: bool) -> None:
        """Replace it. Raises PublicError `actor.state_mutation_reentrant` where it is read-only."""
        self.read(readonly=False)
        if readonly:
            raise PublicError("actor", "state_mutation_reentrant", "State cannot be changed inside on_state_change.")
        self.value = value

    def has_changed(self) -> bool:
        """Whether its stored form is another than when this was last asked. Raises ValidationError."""
        assert self._codec is not None
        encoded = self._codec.encode(self.value)
        changed, self._known = encoded != self._known, encoded
        return changed
