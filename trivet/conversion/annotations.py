"""From annotations to shapes."""

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence
from collections.abc import Set as AbstractSet
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, TypeVar

import attrs
import typing_extensions

from trivet.conversion.fixed import is_frozen
from trivet.conversion.names import WIRE_KEY
from trivet.conversion.shapes import (
    ANYTHING,
    COLLECTIONS,
    LEAVES,
    Choice,
    Class,
    Collection,
    Dictionary,
    Enumeration,
    Field,
    Key,
    Record,
    Reference,
    Shape,
    TypedMapping,
    Union,
    as_key,
    dataclass_attributes,
    hashable,
    plain_value,
)
from trivet.errors import DefinitionError
from trivet.protocol import values

_ADVICE: Final = (
    "use attrs classes, dataclasses, TypedDicts, NamedTuples, enums, Literal, unions, list, tuple, set, dict, "
    "str, int, float, bool, bytes, datetime, date, timedelta, Decimal, UUID, None, or object for any plain value"
)
_WRAPPERS: Final[tuple[Any, ...]] = (
    typing.Final,
    typing.Required,
    typing.NotRequired,
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
)
_DICTIONARIES: Final[tuple[Any, ...]] = (dict, Mapping, MutableMapping)
_ALIASES: Final[Mapping[Any, Any]] = {MutableSequence: list, AbstractSet: frozenset}
_ALIAS_TYPES: Final = tuple(
    {typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", type(None))} - {NoneType}
)
# Value contains itself by name, so that it cannot be read like other aliases: it is known by the arms that it has.
_VALUE_ARMS: Final = frozenset(
    arm for arm in typing.get_args(values.Value) if isinstance(arm, type) and typing.get_origin(arm) is None
)


def show(type_: object) -> str:
    """The name of a type in messages."""
    if type_ is NoneType:
        return "None"
    if isinstance(type_, type) and not typing.get_args(type_):
        return type_.__qualname__.rpartition("<locals>.")[2]
    return repr(type_).replace("typing.", "").replace("collections.abc.", "")


def type_hints(of: Any, what: str) -> dict[str, Any]:
    """The resolved annotations of a class or function. DefinitionError where a name cannot be found."""
    try:
        return typing_extensions.get_type_hints(of, include_extras=True)
    except NameError:
        pass
    except Exception as error:  # evaluating an annotation runs what is written there
        raise DefinitionError(f"{what}: an annotation cannot be read: {error}") from error
    # `Value` names itself, and a class defined in a function may too.
    names: dict[str, Any] = {"Value": values.Value}
    if isinstance(of, type):
        names |= vars(sys.modules[of.__module__]) if of.__module__ in sys.modules else {}
        names |= {of.__name__: of}
    else:
        names |= getattr(inspect.unwrap(of), "__globals__", {})
    try:
        return typing_extensions.get_type_hints(of, localns=names, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{what}: an annotation names {error.name!r}, which cannot be found at registration. Define it at the "
            f"top level of a module (a class defined inside a function cannot be found by name, which also "
            f"happens through `from __future__ import annotations`), or import it outside of `if TYPE_CHECKING`"
        ) from error
    except Exception as error:
        raise DefinitionError(f"{what}: an annotation cannot be read: {error}") from error


class ShapeReader:
    """Reads types into shapes. One for each way of renaming fields; remembers classes, which may be recursive.

    Without `rename`, fields keep their names in Python, whatever their metadata says.
    """

    def __init__(self, rename: Callable[[str], str] | None) -> None:
        self._rename = rename
        self._classes: dict[Any, Shape] = {}

    def read(self, type_: Any, what: str) -> Shape:
        """The shape of a type. `what` says where the type stands, for the DefinitionError."""
        before = dict(self._classes)
        try:
            return self._read(type_, {}, what)
        except DefinitionError:
            self._classes = before  # without what was read by half
            raise

    def _read(self, type_: Any, typevars: Mapping[Any, Any], what: str) -> Shape:
        if type_ is None:
            type_ = NoneType
        if type_ is typing.Any:
            return ANYTHING
        if isinstance(type_, type) and type_ in LEAVES:
            return LEAVES[type_]
        origin = typing_extensions.get_origin(type_)
        args = typing_extensions.get_args(type_)
        if origin in (typing.Union, UnionType):
            return self._union(args, typevars, what)
        if origin is typing.Annotated or (origin is not None and origin in _WRAPPERS):
            return self._read(args[0], typevars, what)
        if origin is typing.Literal or origin is typing_extensions.Literal:
            return self._choice(args, what)
        if isinstance(type_, typing.NewType | typing_extensions.NewType):
            return self._read(type_.__supertype__, typevars, what)
        if isinstance(type_, TypeVar):
            return self._typevar(type_, typevars, what)
        if isinstance(type_, _ALIAS_TYPES) or isinstance(origin, _ALIAS_TYPES):
            return self._alias(type_, origin, args, typevars, what)
        if isinstance(type_, str | typing.ForwardRef):
            name = type_ if isinstance(type_, str) else type_.__forward_arg__
            raise self._refused(what, f"the name {name!r}", "write the type itself")
        kind: Any = type_ if origin is None else origin
        kind = _ALIASES.get(kind, kind)
        if kind in _DICTIONARIES:
            return self._dictionary(args, typevars, what)
        if kind is tuple:
            return self._tuple(args, typevars, what)
        if kind in COLLECTIONS:
            return self._collection(kind, args, typevars, what)
        if isinstance(kind, type):
            return self._named(type_, kind, args, typevars, what)
        raise self._refused(what, show(type_), _ADVICE)

    def _refused(self, what: str, thing: str, advice: str) -> DefinitionError:
        return DefinitionError(f"{what}: {thing} cannot travel; {advice}")

    def _union(self, args: tuple[Any, ...], typevars: Mapping[Any, Any], what: str) -> Shape:
        if _VALUE_ARMS.issubset(arg for arg in args if isinstance(arg, type) and typing.get_origin(arg) is None):
            return ANYTHING
        arms: list[Shape] = []
        for arg in args:
            arm = self._read(arg, typevars, what)
            if arm is ANYTHING:
                return ANYTHING
            for part in arm.arms if isinstance(arm, Union) else [arm]:
                if part not in arms:
                    arms.append(part)
        return arms[0] if len(arms) == 1 else Union(arms, " | ".join(arm.name for arm in arms))

    def _choice(self, args: tuple[Any, ...], what: str) -> Shape:
        for arg in args:
            if not isinstance(plain_value(arg), str | int | bytes | NoneType):
                raise self._refused(what, f"the literal {arg!r}", "use str, int, bool, bytes or None")
        return Choice(list(args), " | ".join(repr(plain_value(arg)) for arg in args))

    def _typevar(self, var: TypeVar, typevars: Mapping[Any, Any], what: str) -> Shape:
        if var in typevars:
            found = typevars[var]
            return ANYTHING if found is var else self._read(found, {}, what)
        if var.__constraints__:
            return self._union(var.__constraints__, {}, what)
        return self._read(var.__bound__, {}, what) if var.__bound__ is not None else ANYTHING

    def _alias(self, type_: Any, origin: Any, args: tuple[Any, ...], typevars: Mapping[Any, Any], what: str) -> Shape:
        alias = type_ if origin is None else origin
        args = tuple(_substitute(arg, typevars) for arg in args)
        known = self._classes.get((alias, args))
        if known is not None:
            return known.target if isinstance(known, Reference) and known.target else known
        reference = Reference(alias.__name__)
        self._classes[alias, args] = reference
        try:
            # Names in it are looked up where the alias stands.
            module = vars(sys.modules[alias.__module__]) if alias.__module__ in sys.modules else {}
            holder = types.SimpleNamespace(__annotations__={"value": alias.__value__})
            value = typing_extensions.get_type_hints(holder, module, include_extras=True)["value"]
        except NameError as error:
            raise DefinitionError(
                f"{what}: the alias {alias.__name__} names {error.name!r}, which is not there"
            ) from None
        reference.target = self._read(value, dict(zip(alias.__type_params__, args, strict=False)), what)
        if reference.target is reference:
            raise self._refused(what, f"the alias {alias.__name__}", "it stands for nothing but itself")
        return reference.target

    def _dictionary(self, args: tuple[Any, ...], typevars: Mapping[Any, Any], what: str) -> Shape:
        key, value = (self._read(arg, typevars, what) for arg in args or (str, object))
        if not as_key(key):
            raise self._refused(what, f"a dict with keys of type {key.name}", "use str, int, UUID or an enum of str")
        return Dictionary(key, value, f"dict[{key.name}, {value.name}]")

    def _tuple(self, args: tuple[Any, ...], typevars: Mapping[Any, Any], what: str) -> Shape:
        if not args or args[-1] is Ellipsis:
            item = self._read(args[0], typevars, what) if args else ANYTHING
            return Collection(tuple, (tuple,), item, f"tuple[{item.name}, ...]")
        items = [self._read(arg, typevars, what) for arg in args if arg != ()]
        return Record(tuple, items, 0, f"tuple[{', '.join(item.name for item in items)}]")

    def _collection(self, kind: Any, args: tuple[Any, ...], typevars: Mapping[Any, Any], what: str) -> Shape:
        item = self._read(args[0], typevars, what) if args else ANYTHING
        makes, accepts = COLLECTIONS[kind]
        if makes in (set, frozenset) and not hashable(item):
            raise self._refused(what, f"a set of {item.name}", "its items are not hashable as plain values; use a list")
        return Collection(makes, accepts, item, f"{makes.__name__}[{item.name}]")

    def _named(self, type_: Any, cls: Any, args: tuple[Any, ...], typevars: Mapping[Any, Any], what: str) -> Shape:
        if issubclass(cls, Enum):
            for member in cls:
                if not isinstance(member.value, str | int | float | bytes | NoneType):
                    raise self._refused(what, f"{show(cls)}.{member.name}", "give its members str or int values")
            return Enumeration(cls, show(cls))
        if typing_extensions.is_typeddict(cls):
            read = self._typeddict
        elif hasattr(cls, "_fields") and tuple in cls.__mro__:
            read = self._namedtuple
        elif attrs.has(cls) or dataclasses.is_dataclass(cls):
            read = self._class
        else:
            raise self._refused(what, show(type_), _ADVICE)
        args = tuple(_substitute(arg, typevars) for arg in args)
        known = self._classes.get((cls, args))
        return known if known is not None else read(cls, args)

    def _typeddict(self, cls: Any, args: tuple[Any, ...]) -> Shape:
        shape = self._classes[cls, args] = TypedMapping({}, show(cls))
        typevars = _typevars_of(cls, args)
        for key, hint in type_hints(cls, show(cls)).items():
            required = key in cls.__required_keys__
            inner = hint
            # Where annotations are strings, only the resolved hint knows.
            while (origin := typing_extensions.get_origin(inner)) in (*_WRAPPERS, typing.Annotated):
                if origin in (typing.Required, typing_extensions.Required):
                    required = True
                elif origin in (typing.NotRequired, typing_extensions.NotRequired):
                    required = False
                inner = typing_extensions.get_args(inner)[0]
            shape.keys[key] = Key(self._read(inner, typevars, f"{show(cls)}[{key!r}]"), required)
        return shape

    def _namedtuple(self, cls: Any, args: tuple[Any, ...]) -> Shape:
        shape = self._classes[cls, args] = Record(cls, [], len(cls._field_defaults), show(cls))
        hints = type_hints(cls, show(cls))
        typevars = _typevars_of(cls, args)
        shape.items += [self._read(hints.get(name, object), typevars, f"{show(cls)}.{name}") for name in cls._fields]
        return shape

    def _class(self, cls: Any, args: tuple[Any, ...]) -> Shape:
        name = show(cls)
        is_attrs = attrs.has(cls)
        shape = self._classes[cls, args] = Class(cls, name, is_frozen(cls))
        hints = type_hints(cls, name)
        if not is_attrs:
            for field, hint in hints.items():
                if isinstance(hint, dataclasses.InitVar) and not hasattr(cls, field):
                    raise DefinitionError(f"{name}.{field}: an InitVar without a default cannot travel; give it one")
        attributes: list[attrs.Attribute[Any]] = list(attrs.fields(cls)) if is_attrs else dataclass_attributes(cls)
        wires: dict[str, str] = {}
        for attribute in attributes:
            hint = hints.get(attribute.name, attribute.type)
            if hint is None and attribute.name not in hints:
                raise DefinitionError(f"{name}.{attribute.name} has no annotation; add one, so that it can travel")
            alias = attribute.alias or attribute.name
            wire: Any = alias
            if self._rename is not None:
                wire = attribute.metadata.get(WIRE_KEY) or self._rename(alias)
            if not isinstance(wire, str):
                raise DefinitionError(f"{name}.{attribute.name}: the wire name has to be a string, not {wire!r}")
            if wire in wires:
                raise DefinitionError(
                    f"{name}: {wires[wire]!r} and {attribute.name!r} are both {wire!r} on the wire; rename one, "
                    f'or give one a name of its own with metadata=trivet.conversion.wire_name("...")'
                )
            wires[wire] = attribute.name
            typevars = _typevars_of(_owner(cls, attribute.name), args, below=cls)
            shape.fields.append(Field(attribute, wire, self._read(hint, typevars, f"{name}.{attribute.name}")))
        return shape


def _owner(cls: type, field: str) -> type:
    """The class that declares a field, whose type variables its annotation uses."""
    for base in cls.__mro__:
        if field in inspect.get_annotations(base):
            return base
    return cls


def _typevars_of(owner: Any, args: tuple[Any, ...], below: Any = None) -> dict[Any, Any]:
    """What the type variables of `owner` stand for, in a class `below` it that is given `args`."""
    cls = owner if below is None else below
    parameters = getattr(cls, "__parameters__", ())
    bound = dict(zip(parameters, args, strict=False))
    if cls is owner:
        return bound
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if isinstance(origin, type) and issubclass(origin, owner):
            return _typevars_of(owner, tuple(_substitute(arg, bound) for arg in typing.get_args(base)), below=origin)
    for base in cls.__bases__:
        if issubclass(base, owner):
            return _typevars_of(owner, (), below=base)
    return {}


def _substitute(type_: Any, typevars: Mapping[Any, Any]) -> Any:
    """A type with its type variables replaced."""
    if isinstance(type_, TypeVar):
        return typevars.get(type_, type_)
    parameters = getattr(type_, "__parameters__", ())
    if not parameters or isinstance(type_, type):
        return type_
    return type_[tuple(typevars.get(parameter, parameter) for parameter in parameters)]
