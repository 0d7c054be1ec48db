"""An actor class as the runtime and the clients need it: everything looked up, resolved and prepared once."""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import attrs

from trivet.actor import HOOKS, Abandoned, Action, Actor
from trivet.class_checks import check_class
from trivet.conversion import CallSignature, StateCodec, StateConverter, ValidationError, WireConverter
from trivet.errors import DefinitionError, PublicError
from trivet.event import Event, OverflowPolicy, SubscribeHook
from trivet.options import Options
from trivet.protocol.values import UNDEFINED, Value

MAX_NAME: Final = 64
T = TypeVar("T")
_NO_DEFAULT: Final = inspect.Parameter.empty
_BEFORE_TURN: Final = frozenset({"on_before_connect", "create_conn_state"})
_BEFORE_CALLS: Final = _BEFORE_TURN | {"on_migrate", "on_wake", "run"}
_AFTER_ACTIONS: Final = frozenset({"on_state_change", "on_before_action_response"})


@attrs.frozen(eq=False)
class ActionDefinition:
    """One action: `fn(actor, *args)`."""

    name: str
    attribute: str
    fn: Callable[..., Any]
    signature: CallSignature
    concurrent: bool
    readonly: bool
    timeout: float | None
    abandoned: Abandoned
    internal: bool
    immediate: bool
    """Neither an `async def`, nor followed by a hook that may be one."""
    changes: bool
    """Whether running it, and what belongs to it, may change the state."""


@attrs.frozen(eq=False)
class EventDefinition:
    """One declared event. `dump` checks a payload against the declared types and gives its plain values."""

    name: str
    attribute: str
    types: tuple[object, ...]
    dumpers: tuple[Callable[[Any], Value], ...]
    loaders: tuple[Callable[[Value], Any], ...]
    subscribe_hook: SubscribeHook | None
    policy: OverflowPolicy
    key: Callable[..., Hashable] | None
    gated: bool

    def dump(self, args: Sequence[object]) -> list[Value]:
        """The payload as it travels. Raises ValidationError, also for the wrong number of arguments."""
        dumpers = self.dumpers
        if len(args) != len(dumpers):
            raise TypeError(f"event {self.name} takes {len(dumpers)} arguments, got {len(args)}")
        try:
            return [dump(arg) for dump, arg in zip(dumpers, args, strict=True)]
        except ValidationError as error:
            for index, (dump, arg) in enumerate(zip(dumpers, args, strict=True)):
                _raise_placed(dump, arg, f"{self.name}[{index}]")
            raise error

    def load(self, args: Sequence[Value]) -> list[Any]:
        """A payload as it arrived; what is missing is UNDEFINED, what is too much is ignored. ValidationError."""
        padded = [*args, *([UNDEFINED] * (len(self.loaders) - len(args)))]
        return [load(arg) for load, arg in zip(self.loaders, padded, strict=False)]


def _raise_placed(dump: Callable[[Any], Value], arg: object, place: str) -> None:
    try:
        dump(arg)
    except ValidationError as error:
        raise error.prefixed(place) from None


@attrs.frozen(eq=False)
class InputHook:
    """A hook with one parameter that comes from outside. Absent input leaves the parameter's default."""

    fn: Callable[..., Any]
    load: Callable[[Value], Any]
    default: Any
    what: str

    def argument(self, value: Value) -> Any:
        """The hook's argument. Raises PublicError `actor.validation_error`."""
        return load_from_outside(self.load, value, self.default, self.what)


@attrs.frozen(eq=False)
class ActorDefinition:
    """One actor class under one set of options and names."""

    cls: type[Actor[Any, Any, Any]]
    name: str
    options: Options
    actions: Mapping[str, ActionDefinition]
    """What clients may call, by name on the wire."""
    internal_actions: Mapping[str, ActionDefinition]
    """What only schedules may run, by name."""
    events: Mapping[str, EventDefinition]
    by_action: Mapping[Action[Any, Any, Any, Any], ActionDefinition]
    by_event: Mapping[Event[*tuple[Any, ...]], EventDefinition]
    converter: WireConverter
    state_codec: StateCodec | None
    conn_state_codec: StateCodec | None
    """None where connection states hold what cannot be stored: such connections cannot outlive their actor's sleep."""
    params_codec: StateCodec | None
    make_state: Callable[[], Any] | None
    create_state: InputHook | None
    on_create: InputHook | None
    make_conn_state: Callable[[], Any]
    load_params: Callable[[Value], Any]
    params_default: Any
    hooks: frozenset[str]

    def action(self, name: str) -> ActionDefinition | None:
        """The action of that name, an internal one too."""
        return self.actions.get(name) or self.internal_actions.get(name)

    @property
    def watches_state(self) -> bool:
        """Whether anybody wants to know of changes of the state."""
        return self.state_codec is not None and "on_state_change" in self.hooks

    @property
    def starts_plainly(self) -> bool:
        """Whether no code of the actor's own comes between its waking and the turn of a call."""
        return self.hooks.isdisjoint(_BEFORE_CALLS)

    @property
    def admits_inline(self) -> bool:
        """Whether admission never waits: no hook of it is async, and none takes the turn."""
        hooks = self.hooks & _BEFORE_TURN
        return "on_connect" not in self.hooks and not any(
            inspect.iscoroutinefunction(getattr(self.cls, hook)) for hook in hooks
        )

    def params(self, value: Value) -> Any:
        """Connection parameters as the class declares them; null is none. Raises `actor.validation_error`."""
        if value is None:  # RivetKit's client leaves null out of a connection, but not out of a call
            value = UNDEFINED
        return load_from_outside(self.load_params, value, self.params_default, "params")

    def dump_any(self, value: object) -> Value:
        """A value of no declared type as it travels."""
        return _dump_object(self.converter)(value)


def load_from_outside(load: Callable[[Value], Any], value: Value, default: Any, what: str) -> Any:
    """A value that a client sent. Raises PublicError `actor.validation_error` with the issues in its metadata."""
    if value is UNDEFINED and default is not _NO_DEFAULT:
        return default
    try:
        return load(value)
    except ValidationError as error:
        raise validation_error(error.prefixed(what)) from None


def validation_error(error: ValidationError) -> PublicError:
    """What the client is told of arguments, an input or parameters that do not fit."""
    return PublicError("actor", "validation_error", str(error), {"issues": error.as_metadata()})


_OBJECT_DUMPERS: Final[dict[int, Callable[[Any], Value]]] = {}


def _dump_object(converter: WireConverter) -> Callable[[Any], Value]:
    dump = _OBJECT_DUMPERS.get(id(converter))
    if dump is None:
        dump = _OBJECT_DUMPERS[id(converter)] = converter.unstructurer(object)
    return dump


def define(
    cls: type[Actor[Any, Any, Any]],
    converter: WireConverter,
    rename: Callable[[str], str],
    defaults: Options,
) -> ActorDefinition:
    """Introspect an actor class. Raises DefinitionError for one that cannot work, saying what to do."""
    _check_context(cls)
    check_class(cls, _members(cls))
    options = cls.options.over(defaults)
    state_type, conn_state_type, params_type = type_arguments(cls)
    hooks = frozenset(name for name in HOOKS if _is_overridden(cls, name))
    actions, by_action = _actions(cls, converter, rename, options, hooks)
    events, by_event = _events(cls, converter, rename)
    name = cls.name or rename(cls.__name__[:1].lower() + cls.__name__[1:])
    if not name or len(name) > MAX_NAME or "@" in name or "/" in name:
        raise DefinitionError(
            f"{cls.__name__}: {name!r} cannot be an actor's name: 1 to {MAX_NAME} characters, no @ or /"
        )
    no_state = state_type is None or state_type is type(None)
    stored = StateConverter()
    state_codec = None if no_state else _placed(f"{cls.__name__}: its state", stored.state_codec, state_type)
    make_state = None if no_state else _constructor(cls, state_type, "state", "create_state" in hooks)
    conn_state = type(None) if conn_state_type is None else conn_state_type
    return ActorDefinition(
        cls=cls,
        name=name,
        options=options,
        actions={name: one for name, one in actions.items() if not one.internal},
        internal_actions={name: one for name, one in actions.items() if one.internal},
        events=events,
        by_action=by_action,
        by_event=by_event,
        converter=converter,
        state_codec=state_codec,
        conn_state_codec=_codec_or_none(stored, conn_state_type),
        params_codec=_codec_or_none(stored, params_type),
        make_state=make_state,
        create_state=_input_hook(cls, "create_state", converter, hooks),
        on_create=_input_hook(cls, "on_create", converter, hooks),
        make_conn_state=_constructor(cls, conn_state, "connection state", "create_conn_state" in hooks),
        load_params=_placed(f"{cls.__name__}: its params", converter.structurer, params_type),
        params_default=_params_default(cls, params_type, hooks),
        hooks=hooks,
    )


def _placed(what: str, prepare: Callable[[object], T], type_: object) -> T:
    """What `prepare` makes of a type. Raises DefinitionError that names what is of this type."""
    try:
        return prepare(type_)
    except DefinitionError as error:
        raise DefinitionError(f"{what}: {error}") from error


def _codec_or_none(converter: StateConverter, type_: object) -> StateCodec | None:
    """A connection may have a state that cannot be stored, a cancel scope in it for example."""
    try:
        return converter.state_codec(type_)
    except DefinitionError:
        return None


def type_arguments(cls: type[Actor[Any, Any, Any]]) -> tuple[object, object, object]:
    """What stands for State, ConnState and Params in `cls`, through its bases. The defaults are None, None, object."""
    known: dict[object, object] = {}
    arguments: tuple[object, ...] = ()
    for base in cls.__mro__:
        for generic in vars(base).get("__orig_bases__", ()):
            origin: Any = get_origin(generic)
            args = get_args(generic)
            if not (isinstance(origin, type) and Actor in origin.__mro__):
                continue
            args = tuple(known.get(arg, arg) for arg in args)
            if origin is Actor:
                arguments = args
                break
            parameters: tuple[object, ...] = getattr(generic.__origin__, "__parameters__", ())
            known.update(zip(parameters, args, strict=False))
        if arguments:
            break
    found = dict(enumerate(None if isinstance(argument, TypeVar) else argument for argument in arguments))
    return found.get(0), found.get(1), found.get(2, object)


def _is_overridden(cls: type[Any], hook: str) -> bool:
    own: object = getattr(cls, hook, None)
    return own is not None and own is not _BASE_HOOKS.get(hook)


_BASE_HOOKS: Final[Mapping[str, object]] = {name: member for name, member in vars(Actor).items() if name in HOOKS}


def _members(cls: type[Any]) -> dict[str, Any]:
    """Class attributes by name, those of a subclass before those of its bases, in the order of definition."""
    members: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        members.update(vars(base))
    return members


_CONTEXT: Final = frozenset(name for name, member in vars(Actor).items() if isinstance(member, property)) | {
    "broadcast",
    "client",
    "publish",
    "statistics",
    "turn",
    "start_soon",
    "wait_until",
    "keep_awake",
    "save",
    "sleep",
    "destroy",
}


def _check_context(cls: type[Any]) -> None:
    """Refuse a class that hides what every actor has, which would fail later and less clearly."""
    for base in cls.__mro__:
        hidden = sorted(_CONTEXT.intersection(vars(base))) if base is not Actor and base is not object else []
        if hidden:
            raise DefinitionError(f"{base.__name__}.{hidden[0]} hides Actor.{hidden[0]}; call it something else")


def _as_action(member: Any) -> Action[Any, Any, Any, Any] | None:
    if not isinstance(member, Action):
        return None
    return cast("Action[Any, Any, Any, Any]", member)  # type: ignore[redundant-cast]  # pyright infers unknowns


def _as_event(member: Any) -> Event[*tuple[Any, ...]] | None:
    if not isinstance(member, Event):
        return None
    return cast("Event[*tuple[Any, ...]]", member)  # type: ignore[redundant-cast]  # pyright infers unknowns


def _actions(
    cls: type[Any],
    converter: WireConverter,
    rename: Callable[[str], str],
    options: Options,
    hooks: frozenset[str],
) -> tuple[dict[str, ActionDefinition], dict[Action[Any, Any, Any, Any], ActionDefinition]]:
    actions: dict[str, ActionDefinition] = {}
    by_action: dict[Action[Any, Any, Any, Any], ActionDefinition] = {}
    for attribute, member in _members(cls).items():
        found = _as_action(member)
        if found is None:
            continue
        name = found.wire_name or rename(attribute)
        if name in actions:
            clash = actions[name].attribute
            raise DefinitionError(
                f"{cls.__name__}: the actions {clash} and {attribute} are both called {name!r} on the wire;"
                " give one of them another with @action(name=...)"
            )
        concurrent = found.concurrent if found.concurrent is not None else bool(options.concurrent)
        timeout = found.timeout if found.timeout is not None else options.action_timeout
        try:
            signature = CallSignature(found.fn, converter)
        except DefinitionError as error:
            raise DefinitionError(f"{cls.__name__}.{attribute}: {error}") from error
        definition = ActionDefinition(
            name,
            attribute,
            found.fn,
            signature,
            concurrent,
            found.readonly,
            timeout,
            found.abandoned,
            found.internal,
            immediate=not (inspect.iscoroutinefunction(found.fn) or hooks & _AFTER_ACTIONS),
            changes=not found.readonly or "on_before_action_response" in hooks,
        )
        actions[name] = by_action[found] = definition
    return actions, by_action


def _events(
    cls: type[Any], converter: WireConverter, rename: Callable[[str], str]
) -> tuple[dict[str, EventDefinition], dict[Event[*tuple[Any, ...]], EventDefinition]]:
    events: dict[str, EventDefinition] = {}
    by_event: dict[Event[*tuple[Any, ...]], EventDefinition] = {}
    for attribute, member in _members(cls).items():
        found = _as_event(member)
        if found is None:
            continue
        name = found.wire_name or rename(attribute)
        if name in events:
            clash = events[name].attribute
            raise DefinitionError(
                f"{cls.__name__}: the events {clash} and {attribute} are both called {name!r} on the wire;"
                " give one of them another with Event(..., name=...)"
            )
        try:
            dumpers = tuple(converter.unstructurer(type_) for type_ in found.types)
            loaders = tuple(converter.structurer(type_) for type_ in found.types)
        except DefinitionError as error:
            raise DefinitionError(f"{cls.__name__}.{attribute}: {error}") from error
        definition = EventDefinition(
            name, attribute, found.types, dumpers, loaders, found.subscribe_hook, found.policy, found.key, found.gated
        )
        events[name] = by_event[found] = definition
    return events, by_event


def _constructor(cls: type[Any], type_: object, what: str, has_hook: bool) -> Callable[[], Any]:
    if type_ is type(None) or type_ is None:
        return lambda: None
    origin = get_origin(type_) or type_
    if isinstance(origin, type) and _takes_no_argument(origin):
        return origin
    if has_hook:
        return lambda: None
    hook = "create_state(self, input)" if what == "state" else "create_conn_state(self, params)"
    raise DefinitionError(
        f"{cls.__name__}: its {what}, {getattr(type_, '__name__', type_)}, cannot be made without arguments;"
        f" give its fields defaults, or the class a {hook} hook"
    )


def _takes_no_argument(type_: type[Any]) -> bool:
    try:
        parameters = inspect.signature(type_).parameters.values()
    except ValueError:  # builtins such as int and dict have no signature and all work without arguments
        return True
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(parameter.default is not _NO_DEFAULT or parameter.kind in variadic for parameter in parameters)


def _hook_parameter(cls: type[Any], hook: str) -> inspect.Parameter:
    parameters = [*inspect.signature(getattr(cls, hook)).parameters.values()][1:]
    if len(parameters) != 1:
        raise DefinitionError(f"{cls.__name__}.{hook} takes exactly one parameter beside self")
    return parameters[0]


def _input_hook(cls: type[Any], hook: str, converter: WireConverter, hooks: frozenset[str]) -> InputHook | None:
    if hook not in hooks:
        return None
    parameter = _hook_parameter(cls, hook)
    if parameter.annotation is _NO_DEFAULT:
        raise DefinitionError(f"{cls.__name__}.{hook}: annotate its parameter, so that the input can be checked")
    fn = getattr(cls, hook)
    annotation = inspect.get_annotations(fn, eval_str=True)[parameter.name]
    default = parameter.default
    if default is _NO_DEFAULT and annotation in (object, Any):
        default = UNDEFINED  # an untyped input may be absent
    return InputHook(fn, converter.structurer(annotation), default, "input")


def _params_default(cls: type[Any], params_type: object, hooks: frozenset[str]) -> Any:
    """What stands for absent parameters: a hook's own default, None where allowed, `Params()` where that works."""
    for hook in ("create_conn_state", "on_before_connect"):
        if hook in hooks and (default := _hook_parameter(cls, hook).default) is not _NO_DEFAULT:
            return default
    if params_type in (object, Any, None) or type(None) in get_args(params_type):
        return None
    if isinstance(params_type, type) and params_type.__module__ != "builtins" and _takes_no_argument(params_type):
        return params_type()
    return _NO_DEFAULT  # absent ones are a mistake of the client's
