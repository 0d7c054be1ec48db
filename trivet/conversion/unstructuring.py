"""From users' values to plain ones, checking on the way that they are of their types."""

import json
from collections.abc import Callable
from typing import Any

from cattrs.gen import (
    make_dict_unstructure_fn_from_attrs,  # pyright: ignore[reportUnknownVariableType] # attrs.Attribute is unparametrised there
)

from trivet.conversion.annotations import ShapeReader
from trivet.conversion.arms import admits_undefined
from trivet.conversion.errors import Issue, ValidationError
from trivet.conversion.hooks import UNIFORM, Hooks, uniform
from trivet.conversion.leaves import OUT, STORED_OUT, Hook, int_out, invalid, is_dict, mismatch
from trivet.conversion.paths import Gathering, convert_items, step
from trivet.conversion.plain import frozen, make_plain_out, plain_out_stored
from trivet.conversion.shapes import (
    Choice,
    Class,
    Collection,
    Dictionary,
    Enumeration,
    Leaf,
    Record,
    Shape,
    TypedMapping,
    Union,
    plain_value,
    resolved,
)
from trivet.conversion.unions import TAG, TAGGED, tags
from trivet.errors import DefinitionError
from trivet.protocol.values import UNDEFINED


class Unstructuring(Hooks):
    """Makes the hooks that unstructure."""

    def __init__(self, reader: ShapeReader, *, detailed: bool, stored: bool) -> None:
        super().__init__(detailed=detailed, stored=stored)
        self._reader = reader
        self._plain = plain_out_stored if stored else make_plain_out(self._of_class)
        self._by_class: dict[type, Hook] = {}

    def _of_class(self, cls: type) -> Hook | None:
        """For values of no declared type: the hook of their class, made when it is first met."""
        hook = self._by_class.get(cls)
        if hook is None and cls is not object:
            try:
                hook = self.hook(self._reader.read(cls, cls.__qualname__))
            except DefinitionError as error:
                raise invalid(str(error)) from None
            self._by_class[cls] = hook
        return hook

    def leaf(self, shape: Leaf) -> Hook:
        if shape.python_type is object:
            return self._plain
        return (STORED_OUT if self.stored else OUT)[shape.python_type]

    def collection(self, shape: Collection) -> Hook:
        item, name = self.hook(shape.item), shape.name
        accepts: Any = shape.accepts
        inner = resolved(shape.item)
        uniform_type = inner.python_type if isinstance(inner, Leaf) and inner.python_type in UNIFORM else None
        finish = self._finish(shape, inner)
        # Stored state is encoded before anything can change it: its lists need not be copied.
        keep = self.stored and finish is list

        def unstructure_fast(value: Any, _: object = None) -> Any:
            if not isinstance(value, accepts):
                raise mismatch(name, value)
            if uniform_type is not None:
                kind: type[object] = value.__class__
                if keep and kind is list and uniform(value, uniform_type):
                    return value
                values = list(value)
                if uniform(values, uniform_type):
                    return values if finish is list else finish(values)
            return finish([item(part) for part in value])

        def unstructure_detailed(value: Any, _: object = None) -> Any:
            if not isinstance(value, accepts):
                raise mismatch(name, value)
            return finish(convert_items(item, value))

        return unstructure_detailed if self.detailed else unstructure_fast

    def _finish(self, shape: Collection, item: Shape) -> Callable[[list[Any]], Any]:
        """What the list of converted items becomes."""
        if shape.python_type not in {set, frozenset}:
            return list
        if self.stored:
            if isinstance(item, Leaf) and item.python_type in {str, int}:
                return sorted
            return lambda items: sorted(items, key=json.dumps)
        if isinstance(item, Leaf) and item.python_type is not object:
            return set
        return lambda items: set(map(frozen, items))

    def dictionary(self, shape: Dictionary) -> Hook:
        key, item, name = self.key(shape.key), self.hook(shape.value), shape.name
        inner = resolved(shape.value)
        inner_key = resolved(shape.key)
        uniform_type = inner.python_type if isinstance(inner, Leaf) and inner.python_type in UNIFORM else None
        str_keys = isinstance(inner_key, Leaf) and inner_key.python_type is str

        def unstructure_fast(value: Any, _: object = None) -> Any:
            if not is_dict(value):
                raise mismatch(name, value)
            if str_keys and uniform(list(value), str):
                if uniform_type is not None and uniform(list(value.values()), uniform_type):
                    return dict(value)
                return {name: item(part) for name, part in value.items()}
            return {key(name): item(part) for name, part in value.items()}

        def unstructure_detailed(value: Any, _: object = None) -> Any:
            if not is_dict(value):
                raise mismatch(name, value)
            gathering = Gathering()
            result: dict[Any, Any] = {}
            for key_, part in value.items():
                plain_key = gathering.convert(key, key_, key_)
                result[plain_key] = gathering.convert(item, part, key_ if plain_key is None else plain_key)
                if gathering.full:
                    break
            gathering.check()
            return result

        return unstructure_detailed if self.detailed else unstructure_fast

    def key(self, shape: Shape) -> Hook:
        """The hook for keys, which become strings."""
        inner = resolved(shape)
        if isinstance(inner, Leaf) and inner.python_type is int:
            return int_key_out
        return self.hook(shape)

    def record(self, shape: Record) -> Hook:
        hooks = [self.hook(item) for item in shape.items]
        name, length = shape.name, len(hooks)
        cls: Any = shape.python_type

        def unstructure(value: Any, _: object = None) -> Any:
            if not isinstance(value, cls):
                raise mismatch(name, value)
            if len(value) != length:
                raise invalid(f"expected {length} items, got {len(value)}")
            gathering = Gathering()
            items = [
                gathering.convert(hook, part, index)
                for index, (hook, part) in enumerate(zip(hooks, value, strict=True))
            ]
            gathering.check()
            return items

        return unstructure

    def typed_mapping(self, shape: TypedMapping) -> Hook:
        keys = {name: (self.hook(key.shape), key.required) for name, key in shape.keys.items()}

        def unstructure(value: Any, _: object = None) -> Any:
            if not is_dict(value):
                raise mismatch(shape.name, value)
            gathering = Gathering()
            result: dict[str, Any] = {}
            for name, (hook, required) in keys.items():
                if name in value:
                    result[name] = gathering.convert(hook, value[name], name)
                elif required:
                    gathering.add([Issue(step(name), "missing")])
            gathering.check()
            return result

        return unstructure

    def class_(self, shape: Class) -> Hook:
        name = shape.name
        cls: Any = shape.python_type
        drop = not self.stored and any(admits_undefined(field.shape) for field in shape.fields)

        if self.detailed:
            parts = [(field.attribute.name, field.wire, self.hook(field.shape)) for field in shape.fields]

            def unstructure_detailed(value: Any, _: object = None) -> Any:
                if not isinstance(value, cls):
                    raise mismatch(name, value)
                gathering = Gathering()
                result: dict[str, Any] = {}
                for attribute, wire, hook in parts:
                    try:
                        part = getattr(value, attribute)
                    except AttributeError:
                        gathering.add([Issue(step(wire), "missing")])
                        continue
                    result[wire] = gathering.convert(hook, part, wire)
                gathering.check()
                return defined(result) if drop else result

            return unstructure_detailed

        generated: Hook = make_dict_unstructure_fn_from_attrs(
            self.attributes(shape, lambda field: True), cls, self.cattrs, _cattrs_include_init_false=True
        )

        def unstructure_fast(value: Any, _: object = None) -> Any:
            if type(value) is cls or isinstance(value, cls):
                return generated(value)
            raise mismatch(name, value)

        def unstructure_defined(value: Any, _: object = None) -> Any:
            return defined(unstructure_fast(value))

        return unstructure_defined if drop else unstructure_fast

    def enumeration(self, shape: Enumeration) -> Hook:
        cls: Any = shape.python_type
        convert = self._stored_value

        def unstructure(value: Any, _: object = None) -> Any:
            if isinstance(value, cls):
                return convert(value.value)
            raise mismatch(shape.name, value)

        return unstructure

    def choice(self, shape: Choice) -> Hook:
        table: dict[tuple[type, Any], Any] = {
            (type(value), value): self._stored_value(plain_value(value)) for value in shape.values
        }

        def unstructure(value: Any, _: object = None) -> Any:
            try:
                return table[type(value), value]
            except (KeyError, TypeError):
                raise mismatch(f"one of {shape.name}", value) from None

        return unstructure

    def _stored_value(self, value: Any) -> Any:
        return STORED_OUT[bytes](value) if self.stored and type(value) is bytes else value

    def union(self, shape: Union) -> Hook:
        arms = [resolved(arm) for arm in shape.arms]
        hooks = [self.hook(arm) for arm in arms]
        if self.stored:
            for index, name in tags(arms).items():
                hooks[index] = _tagged(hooks[index], name)
        exact: dict[type, Hook] = {}
        for arm, hook in zip(arms, hooks, strict=True):
            if isinstance(arm, Leaf | Class | Enumeration) and arm.python_type is not object:
                exact.setdefault(arm.python_type, hook)

        def unstructure(value: Any, _: object = None) -> Any:
            kind: type[object] = value.__class__
            direct = exact.get(kind)
            if direct is not None:
                return direct(value)
            errors: list[ValidationError] = []
            for hook in hooks:
                try:
                    return hook(value)
                except ValidationError as error:
                    errors.append(error)
            deeper = [error for error in errors if any(issue.path for issue in error.issues)]
            raise deeper[0] if len(deeper) == 1 else mismatch(shape.name, value)

        return unstructure


def _tagged(hook: Hook, name: str) -> Hook:
    def unstructure(value: Any, _: object = None) -> Any:
        return {TAG: name, TAGGED: hook(value)}

    return unstructure


def defined(value: dict[str, Any]) -> dict[str, Any]:
    """An object without its undefined fields, which are the same as absent ones."""
    return {key: part for key, part in value.items() if part is not UNDEFINED}


def int_key_out(value: Any, _: object = None) -> str:
    return str(int_out(value))
