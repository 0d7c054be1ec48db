"""From plain values to users' types."""

from collections.abc import Callable, Mapping
from enum import Enum
from types import NoneType
from typing import Any

from cattrs.errors import AttributeValidationNote, ClassValidationError
from cattrs.gen import (
    make_dict_structure_fn_from_attrs,  # pyright: ignore[reportUnknownVariableType] # attrs.Attribute is unparametrised there
)

from trivet.conversion.arms import (
    Arm,
    Choices,
    admits_undefined,
    candidates,
    for_arrays,
    for_objects,
    is_meant,
    sketch,
)
from trivet.conversion.errors import Issue, ValidationError
from trivet.conversion.hashing import check_hashes, set_maker
from trivet.conversion.hooks import PLAIN_LEAVES, UNIFORM, Hooks, uniform
from trivet.conversion.leaves import (
    IN,
    STORED_IN,
    STORED_OUT,
    Hook,
    int_in,
    invalid,
    is_array,
    is_mapping,
    is_set,
    mismatch,
)
from trivet.conversion.paths import Gathering, convert_items, step
from trivet.conversion.plain import plain_in, plain_in_stored
from trivet.conversion.shapes import (
    Choice,
    Class,
    Collection,
    Dictionary,
    Enumeration,
    Field,
    Leaf,
    Record,
    Shape,
    TypedMapping,
    Union,
    plain_value,
    resolved,
)
from trivet.conversion.unions import TAG, TAGGED, tags
from trivet.protocol.values import UNDEFINED, Undefined


class Structuring(Hooks):
    """Makes the hooks that structure."""

    def __init__(self, choices: Choices, *, detailed: bool, stored: bool) -> None:
        super().__init__(detailed=detailed, stored=stored)
        self.choices = choices
        # The same union, wherever it is written, is one to what choices remember.
        self._unions: dict[tuple[Shape, ...], object] = {}

    def leaf(self, shape: Leaf) -> Hook:
        if shape.python_type is object:
            return plain_in_stored if self.stored else plain_in
        return (STORED_IN if self.stored else IN)[shape.python_type]

    def collection(self, shape: Collection) -> Hook:
        item = self.hook(shape.item)
        make: Callable[[list[Any]], Any] = shape.python_type
        from_set = shape.python_type in {set, frozenset}
        inner = resolved(shape.item)
        uniform_type = inner.python_type if isinstance(inner, Leaf) and inner.python_type in UNIFORM else None
        name = "array or Set" if from_set else "array"
        if from_set:
            make = set_maker(make)

        def accept(value: Any) -> list[Any]:
            # A Set may come as an array: JSON has no other way.
            if is_array(value) or (from_set and is_set(value)):
                return list(value)
            raise mismatch(name, value)

        def structure_fast(value: Any, _: object = None) -> Any:
            values = accept(value)
            if uniform_type is not None and uniform(values, uniform_type):
                return make(values)
            return make([item(value) for value in values])

        def structure_detailed(value: Any, _: object = None) -> Any:
            return make(convert_items(item, accept(value)))

        return structure_detailed if self.detailed else structure_fast

    def dictionary(self, shape: Dictionary) -> Hook:
        item = self.hook(shape.value)
        key, check_keys = self.key(shape.key)

        def structure_fast(value: Any, _: object = None) -> Any:
            if not is_mapping(value):
                raise mismatch("object", value)
            check_keys(value)
            return {key(name): item(part) for name, part in value.items() if part is not UNDEFINED}

        def structure_detailed(value: Any, _: object = None) -> Any:
            if not is_mapping(value):
                raise mismatch("object", value)
            check_keys(value)
            gathering = Gathering()
            result = {
                gathering.convert(key, name, name): gathering.convert(item, part, name)
                for name, part in value.items()
                if part is not UNDEFINED and not gathering.full
            }
            gathering.check()
            return result

        # An undefined item is only kept where the type asks for it: in JSON it would not have come at all.
        if admits_undefined(shape.value):

            def structure_all(value: Any, _: object = None) -> Any:
                if not is_mapping(value):
                    raise mismatch("object", value)
                check_keys(value)
                gathering = Gathering()
                result = {
                    gathering.convert(key, name, name): gathering.convert(item, part, name)
                    for name, part in value.items()
                }
                gathering.check()
                return result

            return structure_all
        return structure_detailed if self.detailed else structure_fast

    def key(self, shape: Shape) -> tuple[Hook, Callable[[Any], None]]:
        """The hook for keys, which are strings on the wire, and what checks that a dict can have all of them."""
        inner = resolved(shape)
        hook = int_key if isinstance(inner, Leaf) and inner.python_type is int else self.hook(shape)
        if isinstance(inner, Leaf) and inner.python_type is not str:
            return hook, lambda value: check_hashes(hook, value)
        return hook, lambda _: None

    def record(self, shape: Record) -> Hook:
        hooks = [self.hook(item) for item in shape.items]
        most, least = len(hooks), len(hooks) - shape.optional
        make: Callable[..., Any] = shape.python_type
        is_tuple = shape.python_type is tuple
        length = f"{most} items" if least == most else f"{least} to {most} items"

        def structure(value: Any, _: object = None) -> Any:
            if not is_array(value):
                raise mismatch("array", value)
            if not least <= len(value) <= most:
                raise invalid(f"expected {length}, got {len(value)}")
            gathering = Gathering()
            items = [
                gathering.convert(hook, part, index)
                for index, (hook, part) in enumerate(zip(hooks, value, strict=False))
            ]
            gathering.check()
            return tuple(items) if is_tuple else make(*items)

        return structure

    def typed_mapping(self, shape: TypedMapping) -> Hook:
        keys = {
            name: (self.hook(key.shape), key.required, admits_undefined(key.shape)) for name, key in shape.keys.items()
        }

        def structure(value: Any, _: object = None) -> Any:
            if not is_mapping(value):
                raise mismatch(f"{shape.name} (object)", value)
            gathering = Gathering()
            result: dict[str, Any] = {}
            for name, (hook, required, undefined) in keys.items():
                part = value.get(name, UNDEFINED)
                if part is not UNDEFINED or (undefined and required):
                    result[name] = gathering.convert(hook, part, name)
                elif required:
                    gathering.add([Issue(step(name), "missing")])
            gathering.check()
            return result

        return structure

    def class_(self, shape: Class) -> Hook:
        attributes = self.attributes(shape, lambda field: self._comes_in(shape, field))
        cls: Any = shape.python_type
        generated: Hook = make_dict_structure_fn_from_attrs(
            attributes,
            cls,
            self.cattrs,
            dict.fromkeys((var.__name__ for var in getattr(cls, "__parameters__", ())), object),
            _cattrs_include_init_false=self.stored,
            _cattrs_forbid_extra_keys=False,
        )
        fields = {field.attribute.name: field for field in shape.fields}
        fills = {field.wire: UNDEFINED for field in shape.fields if field.required and admits_undefined(field.shape)}
        name = f"{shape.name} (object)"

        def present(value: Any) -> Any:
            """Without what is undefined, which is the same as absent."""
            if not is_mapping(value):
                raise mismatch(name, value)
            if UNDEFINED in value.values():
                value = {key: part for key, part in value.items() if part is not UNDEFINED}
            return {**fills, **value} if fills else value

        def structure_fast(value: Any, _: object = None) -> Any:
            if type(value) is not dict or fills or UNDEFINED in value.values():
                value = present(value)
            return generated(value)

        def structure_detailed(value: Any, _: object = None) -> Any:
            value = present(value)
            try:
                return generated(value)
            except ClassValidationError as group:
                error = class_issues(group, value, fields)
            raise error

        return structure_detailed if self.detailed else structure_fast

    def _comes_in(self, shape: Class, field: Field) -> bool:
        # What __init__ does not take is computed from the rest: what comes from outside does not get to set it. What
        # was stored does.
        return field.attribute.init or (self.stored and not shape.frozen)

    def enumeration(self, shape: Enumeration) -> Hook:
        cls: Any = shape.python_type
        if shape.is_flag:

            def structure_flag(value: Any, _: object = None) -> Any:
                try:
                    return cls(int_in(value))
                except ValueError as error:
                    if isinstance(error, ValidationError):
                        raise
                    raise invalid(f"expected {shape.name}, got {value!r}") from None

            return structure_flag
        members: list[Enum] = list(cls)
        return self._by_value(shape.name, [(plain_value(member), member) for member in members])

    def choice(self, shape: Choice) -> Hook:
        return self._by_value("", [(plain_value(value), value) for value in shape.values])

    def _by_value(self, name: str, pairs: list[tuple[Any, Any]]) -> Hook:
        if self.stored:
            pairs = [(self._stored(value), result) for value, result in pairs]
        table: dict[tuple[type, Any], Any] = {(type(value), value): result for value, result in pairs}
        # Numbers may come as the other kind of number.
        for value, result in pairs:
            if type(value) is int:
                table.setdefault((float, float(value)), result)
            elif type(value) is float and value.is_integer():
                table.setdefault((int, int(value)), result)
        expected = f"one of {', '.join(repr(value) for value, _ in pairs)}"
        if name:
            expected = f"{name} ({expected})"

        def structure(value: Any, _: object = None) -> Any:
            try:
                return table[type(value), value]
            except (KeyError, TypeError):
                pass
            if isinstance(value, str | int | float) and len(repr(value)) <= 40:
                raise invalid(f"expected {expected}, got {value!r}")
            raise mismatch(expected, value)

        return structure

    def _stored(self, value: Any) -> Any:

        return STORED_OUT[bytes](value) if type(value) is bytes else value

    def union(self, shape: Union) -> Hook:
        arms = [resolved(arm) for arm in shape.arms]
        hooks = [self.hook(arm) for arm in arms]
        exact: dict[type, Hook] = {}
        for arm, hook in zip(arms, hooks, strict=True):
            if isinstance(arm, Leaf) and (arm.python_type in PLAIN_LEAVES or arm.python_type is float):
                exact.setdefault(arm.python_type, hook)
        if NoneType in exact:
            exact.setdefault(Undefined, exact[NoneType])
        if self.stored:
            for type_ in (bytes, Undefined):
                exact.pop(type_, None)  # they come as str and object
        sketches = [sketch(index, arm, self.hook, self._comes_in) for index, arm in enumerate(arms)]
        objects, arrays = ([each for each in sketches if takes(each.shape)] for takes in (for_objects, for_arrays))
        tagged = {name: hooks[index] for index, name in tags(arms).items()} if self.stored else {}

        choices = self.choices
        this = self._unions.setdefault(tuple(arms), object())

        def structure(value: Any, _: object = None) -> Any:
            kind: type[object] = value.__class__
            direct = exact.get(kind)
            if direct is not None:
                try:
                    return direct(value)
                except ValidationError:
                    pass  # a number out of its range may suit another arm
            if tagged and kind is dict and value.keys() == {TAG, TAGGED} and str(value[TAG]) in tagged:
                return tagged[str(value[TAG])](value[TAGGED])
            if is_mapping(value):
                return choose_once(value, objects)
            if is_array(value) or is_set(value):
                return choose_once(value, arrays)
            return choose(value, sketches)  # without parts, it fails at once

        def choose_once(value: Any, order: list[Arm]) -> Any:
            made = choices.made
            if made and (this, id(value)) in made:
                _, result = made[this, id(value)]
                if isinstance(result, ValidationError):
                    raise ValidationError(result.issues)
                return result
            meant: Arm | None = None
            if len(order) > 1:
                order, meant = candidates(order, value)
            if meant is not None and self.detailed:
                order = [meant]
            if not choices.nested:
                return choose(value, order)
            try:
                result = choose(value, order)
            except ValidationError as error:
                made[this, id(value)] = value, ValidationError(error.issues)
                raise
            made[this, id(value)] = value, result
            return result

        def choose(value: Any, order: list[Arm]) -> Any:
            errors: list[tuple[int, ValidationError]] = []
            for arm in order:
                again = arm is not order[-1]
                choices.nested += again
                try:
                    return hooks[arm.index](value)
                except ValidationError as error:
                    errors.append((arm.index, error))
                except (KeyError, TypeError, ValueError):
                    if self.detailed:
                        raise
                finally:
                    choices.nested -= again
            raise self._explained(shape, arms, value, errors)

        return structure

    def _explained(
        self, shape: Union, arms: list[Shape], value: Any, errors: list[tuple[int, ValidationError]]
    ) -> ValidationError:
        """The issues of the one arm that the value was meant for, or the union as a whole."""
        plausible = [error for index, error in errors if is_meant(arms[index], value, error)]
        if len(plausible) == 1:
            return plausible[0]
        return mismatch(shape.name, value)


def class_issues(group: ClassValidationError, value: Mapping[str, Any], fields: Mapping[str, Field]) -> Exception:
    """cattrs' group of errors of one class, with wire names. An exception that says nothing about the value (a mistake
    in a user's validator) comes out as it was.
    """
    gathering = Gathering()
    for error in group.exceptions:
        note = next((n for n in getattr(error, "__notes__", ()) if isinstance(n, AttributeValidationNote)), None)
        wire = fields[note.name].wire if note is not None else None
        if isinstance(error, ValidationError):
            gathering.add(error.issues, step(wire) if wire is not None else "")
        elif isinstance(error, KeyError) and wire is not None and wire not in value:
            gathering.add([Issue(step(wire), "missing")])
        elif isinstance(error, TypeError | ValueError) and wire is None:
            # Raised by the class itself: a validator, a converter or __post_init__. attrs' own validators put
            # the message first, and objects after it.
            gathering.add([Issue("", str(error.args[0]) if error.args else type(error).__name__)])
        else:
            return error
    try:
        gathering.check()
    except ValidationError as gathered:
        return gathered
    return group


def int_key(value: Any, _: object = None) -> int:
    """An integer that is a key, in canonical decimal."""
    if type(value) is str and len(value) <= 400:
        try:
            number = int(value)
        except ValueError:
            pass
        else:
            if str(number) == value:
                return number
    raise mismatch("an integer as key", value)
