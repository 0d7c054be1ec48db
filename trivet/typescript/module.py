"""The file: every actor of a registry, and every type that its clients meet."""

import inspect
import typing
from collections.abc import Awaitable, Coroutine, Iterator
from inspect import Parameter
from typing import Any, Final, TypeAlias

import attrs

from trivet.conversion.annotations import type_hints
from trivet.conversion.arms import admits_undefined
from trivet.conversion.shapes import ANYTHING, Shape
from trivet.definition import ActionDefinition, ActorDefinition, type_arguments
from trivet.registry import Registry
from trivet.typescript.rendering import Types
from trivet.typescript.text import Names, comment, is_identifier, key, type_names

_HEAD: Final = """\
/* eslint-disable */
// The actors of {source}, for RivetKit's client. Written by `trivet types {source}`.
//
//     import {{ createClient }} from "rivetkit/client";
//     import type {{ registry }} from "./registry";
//
//     const client = createClient<typeof registry>("http://localhost:6420");

import type {{ Registry }} from "rivetkit";
"""

# RivetKit reads the payload from _eventType. Before that it compares the event with a type of @standard-schema/spec;
# where that package is not installed, as RivetKit itself does not install it, everything passes that comparison and
# the payload is lost. What has _queueMessage is read first of all.
_EVENT_PAYLOAD: Final = """\
/** An event whose listeners get these arguments. */
export interface EventPayload<Args extends unknown[]> {
  readonly _eventType?: Args;
  readonly _queueMessage?: Args;
}
"""

_DROPPED: Final = [
    "      /** Events were left out, because this client was slow. Sent without a subscription. */",
    '      readonly "trivet.dropped": EventPayload<[dropped: { event: string; count: number }]>;',
]
_DROPPING: Final = frozenset({"drop_oldest", "drop_newest", "latest"})


@attrs.frozen
class _Parameter:
    name: str
    shape: Shape
    optional: bool
    rest: bool


@attrs.frozen
class _Action:
    doc: str | None
    parameters: list[_Parameter]
    result: Shape | None
    """None where nothing is returned."""


_Tree: TypeAlias = "dict[str, _Action | _Tree]"


@attrs.frozen
class _Actor:
    name: str
    definition: ActorDefinition
    actions: "_Tree"
    left_out: list[str]
    """Actions that RivetKit's types have no place for."""
    events: dict[str, list[Shape]]
    params: _Parameter
    input: _Parameter | None


def declarations(registry: Registry, source: str) -> str:
    """The contents of a `registry.d.ts` by which RivetKit's `createClient<typeof registry>` is typed.

    `source` is where the registry is, as the command takes it. The same registry always gives the same text.
    """
    names = type_names()
    types = Types(names, registry.rename)
    actors = [_read(definition, names, registry) for definition in registry.values()]
    for actor in actors:
        _announce(actor, types)
    types.give_names()
    lines = [_HEAD.format(source=source)]
    for actor in actors:
        lines += [*_written(actor, types), ""]
    lines.append("export declare const registry: Registry<{")
    lines += [f"  {key(actor.definition.name)}: {actor.name};" for actor in actors]
    lines += ["}>;", "", _EVENT_PAYLOAD]
    for declaration in types.declarations():
        lines += [*declaration, ""]
    return "\n".join(lines).rstrip() + "\n"


def _read(definition: ActorDefinition, names: Names, registry: Registry) -> _Actor:
    converter = definition.converter
    actions: _Tree = {}
    left_out: list[str] = []
    for name, action in definition.actions.items():
        if not _place(actions, name.split("."), _action(definition, action, registry)):
            left_out.append(name)
    params = converter.shape(type_arguments(definition.cls)[2])
    return _Actor(
        names.type(definition.cls.__name__),
        definition,
        actions,
        left_out,
        {name: [converter.shape(type_) for type_ in event.types] for name, event in definition.events.items()},
        _Parameter("params", params, definition.params_default is not Parameter.empty, rest=False),
        _input(definition),
    )


def _place(tree: "_Tree", path: list[str], action: _Action) -> bool:
    """Put an action where its dotted name says. False where a part of the name is an action, or the whole a group."""
    for part in path[:-1]:
        inner = tree.setdefault(part, {})
        if isinstance(inner, _Action):
            return False
        tree = inner
    return tree.setdefault(path[-1], action) is action


def _action(definition: ActorDefinition, action: ActionDefinition, registry: Registry) -> _Action:
    hints = type_hints(action.fn, action.attribute)
    names = Names()
    parameters: list[_Parameter] = []
    for parameter in [*inspect.signature(action.fn).parameters.values()][1:]:
        if parameter.kind is Parameter.KEYWORD_ONLY:
            continue  # never set from outside
        shape = definition.converter.shape(hints[parameter.name])
        name = registry.rename(parameter.name)
        name = names.parameter(name if is_identifier(name) else parameter.name)
        optional = parameter.default is not Parameter.empty or admits_undefined(shape)
        parameters.append(_Parameter(name, shape, optional, parameter.kind is Parameter.VAR_POSITIONAL))
    result = hints.get("return", object)
    if typing.get_origin(result) in (Awaitable, Coroutine):
        result = typing.get_args(result)[-1]
    returned = None if result in (None, type(None)) else definition.converter.shape(result)
    return _Action(inspect.getdoc(action.fn), parameters, returned)


def _input(definition: ActorDefinition) -> _Parameter | None:
    hook = definition.create_state or definition.on_create
    if hook is None:
        return None
    parameter = [*inspect.signature(hook.fn).parameters.values()][1]
    annotation = inspect.get_annotations(hook.fn, eval_str=True)[parameter.name]
    return _Parameter("input", definition.converter.shape(annotation), hook.default is not Parameter.empty, rest=False)


def _announce(actor: _Actor, types: Types) -> None:
    for action in _all(actor.actions):
        for parameter in action.parameters:
            types.use(parameter.shape, "to server")
        if action.result is not None:
            types.use(action.result, "to client")
    for shapes in actor.events.values():
        for shape in shapes:
            types.use(shape, "to client")
    for outer in (actor.params, actor.input):
        if outer is not None:
            types.use(outer.shape, "to server")


def _all(tree: "_Tree") -> Iterator[_Action]:
    for inner in tree.values():
        if isinstance(inner, _Action):
            yield inner
        else:
            yield from _all(inner)


def _written(actor: _Actor, types: Types) -> list[str]:
    definition = actor.definition
    actions = [
        *_tree(actor.actions, types, "      "),
        *(f"      // {name} shares its name with a group: use action({{ name, args }})" for name in actor.left_out),
    ]
    events = [
        f"      readonly {key(name)}: EventPayload<{types.tuple_of(shapes, 'to client')}>;"
        for name, shapes in actor.events.items()
    ]
    if any(event.policy in _DROPPING for event in definition.events.values()):
        events += _DROPPED
    lines = [
        *comment(_own_docstring(definition.cls)),
        f"export interface {actor.name} {{",
        "  readonly config: {",
        *_group("    readonly actions", actions),
        *_group("    readonly events", events),
        # RivetKit gives handles a `send` for queues, unless it finds that there are none.
        "    readonly queues: unknown;",
        "  };",
    ]
    if actor.params.shape is not ANYTHING:
        lines += ["  /** What `connect` takes, and the option `params`. */", f"  {_outer(actor.params, types)}"]
    if actor.input is not None:
        lines += [
            "  /** The option `input` of `create`, and `createWithInput` of `getOrCreate`. */",
            f"  {_outer(actor.input, types)}",
        ]
    return [*lines, "}"]


def _group(start: str, lines: list[str]) -> list[str]:
    return [f"{start}: {{", *lines, "    };"] if lines else [f"{start}: {{}};"]


def _own_docstring(cls: type[Any]) -> str | None:
    return inspect.cleandoc(cls.__doc__) if "__doc__" in vars(cls) and cls.__doc__ else None


def _outer(value: _Parameter, types: Types) -> str:
    return f"readonly {value.name}{'?' if value.optional else ''}: {types.text(value.shape, 'to server')};"


def _tree(tree: "_Tree", types: Types, indent: str) -> Iterator[str]:
    for name, inner in tree.items():
        if isinstance(inner, _Action):
            yield from comment(inner.doc, indent)
            result = "void" if inner.result is None else types.text(inner.result, "to client")
            yield f"{indent}{key(name)}({_signature(inner.parameters, types)}): {result};"
        else:
            yield f"{indent}readonly {key(name)}: {{"
            yield from _tree(inner, types, f"{indent}  ")
            yield f"{indent}}};"


def _signature(parameters: list[_Parameter], types: Types) -> str:
    """Parameters behind RivetKit's own first one, which it takes away for clients."""
    context = Names(parameter.name for parameter in parameters).parameter("c")
    written = [f"{context}: unknown"]
    last_required = max(
        (index for index, each in enumerate(parameters) if not each.optional and not each.rest), default=-1
    )
    for index, parameter in enumerate(parameters):
        if parameter.rest:
            written.append(f"...{parameter.name}: {types.array_of(parameter.shape, 'to server')}")
        elif parameter.optional and index > last_required:
            written.append(f"{parameter.name}?: {types.text(parameter.shape, 'to server', defined=True)}")
        else:
            written.append(f"{parameter.name}: {types.text(parameter.shape, 'to server')}")
    return ", ".join(written)
