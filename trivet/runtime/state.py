"""The state of one actor: loaded, watched, migrated."""

from collections.abc import Callable
from typing import Any

import attrs

from trivet.conversion import StateCodec, StateEncoder, ValidationError
from trivet.definition import ActorDefinition
from trivet.errors import DecodeError, PublicError, TrivetError
from trivet.runtime.readonly import view
from trivet.store import Stored


class StateMisfit(TrivetError):
    """The stored state of an actor does not fit its class any more. The message names the actor and the path."""


@attrs.define
class StoredState:
    """What was stored, as it stands: `value` of dicts, lists, str, int, float, bool and None, None without a state.

    `version` is the `Options.state_version` of the class that stored it. In `on_migrate`, change `value` or assign it.
    """

    value: Any
    version: int

    @classmethod
    def of(cls, stored: Stored, definition: ActorDefinition) -> "StoredState":
        """What `on_migrate` is given. Raises DecodeError for what is no JSON."""
        codec = definition.state_codec
        value = None if stored.state is None or codec is None else codec.to_plain(stored.state)
        return cls(value, stored.state_version)


class State:
    """Holds what `self.state` is. Without a codec the actor has none."""

    __slots__ = ("_codec", "_encoder", "_known", "value")

    def __init__(self, codec: StateCodec | None) -> None:
        self._codec = codec
        self._encoder: StateEncoder | None = None
        """Made when it is needed: a life that only tells needs none."""
        self.value: Any = None
        self._known = b""

    def load(
        self,
        stored: Stored,
        migrated: StoredState | None,
        definition: ActorDefinition,
        describe: Callable[[], str],
    ) -> None:
        """Take over what was stored, as `on_migrate` has left it. Raises StateMisfit; `describe` names the actor."""
        codec = self._codec
        if codec is None:
            return
        version = definition.options.state_version or 1
        if stored.state is None:  # its class had no state, and now has
            if definition.make_state is None or definition.create_state is not None:
                raise StateMisfit(f"{describe()} was stored without a state: make one in on_migrate")
            self.value = definition.make_state()
            return
        if stored.state_version > version:
            raise StateMisfit(
                f"{describe()}: its state was stored with version {stored.state_version}, which is newer than {version}"
            )
        try:
            data = stored.state if migrated is None else codec.from_plain(migrated.value)
            self.value = codec.decode(data)
        except (ValidationError, DecodeError) as error:
            hint = "" if stored.state_version < version else "; change it in on_migrate, and count up state_version"
            raise StateMisfit(
                f"{describe()}: its stored state does not fit {definition.cls.__name__}: {error}{hint}"
            ) from error

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

    def encode(self) -> bytes | None:
        """As it is stored, the same object as before where nothing has changed. Raises ValidationError."""
        if self._codec is None:
            return None
        if self._encoder is None:
            self._encoder = self._codec.encoder()
        return self._encoder.encode(self.value)

    def has_changed(self) -> bool:
        """Whether its stored form is another than when this was last asked. Raises ValidationError."""
        encoded = self.encode()
        assert encoded is not None
        changed, self._known = encoded != self._known, encoded
        return changed
