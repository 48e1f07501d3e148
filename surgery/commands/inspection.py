"""`surgery inspect MODEL`: what a model is made of, and what a spec can name."""

from collections.abc import Iterator
from typing import Annotated

import typer

from surgery.anatomy.anatomy import Anatomy, BlockKind, Component, Stack
from surgery.anatomy.as_json import anatomy_to_json
from surgery.commands.compiled_folder import artefact_at, describe_recipe, recipe_to_json
from surgery.commands.output import JsonFlag, bytes_text, count_text, print_json, say, share_text
from surgery.spec.selector import FIRST, SECOND, indices_to_text
from surgery.text_table import table


def run(
    model: Annotated[
        str,
        typer.Argument(
            help="A hub id, a pipeline folder, a transformer folder (config.json is enough), a compiled folder, demo."
        ),
    ],
    depth: Annotated[int, typer.Option(min=1, help="How deep to list components.")] = 1,
    names: Annotated[bool, typer.Option("--names", help="Print only what a spec can say: a selector a line.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show the stacks, blocks, components and streams of a model; its weights are not read.

    Of a compiled folder its recipe too, and whether its weights are still what was compiled: for that they are read.
    Of a graph, the layers are those of its base.
    """
    from surgery.anatomy.sources import anatomy_of_source, find_source, second_source
    from surgery.publish.artefact import find_base

    artefact = artefact_at(model)
    if artefact is None:
        source, recipe, told = find_source(model), {}, ""
    else:
        source = (
            find_base(artefact, advice="`surgery check --model` is told where it lies now")
            if artefact.kind == "graph"
            else artefact.source()
        )
        state = artefact.state()
        recipe = {"recipe": recipe_to_json(artefact, state)}
        told = "\n".join([*describe_recipe(artefact, state), "", ""])
    anatomy, other = anatomy_of_source(source), second_source(source)
    second = None if other is None else anatomy_of_source(other)
    found = list(list_selectors(anatomy, depth=depth))
    found += [] if second is None else [f"{SECOND}/{name}" for name in list_selectors(second, depth=depth)]
    if json:
        of_second = {} if second is None else {SECOND: anatomy_to_json(second)}
        print_json(found if names else {**anatomy_to_json(anatomy), **of_second, **recipe})
    elif names:
        say("\n".join(found))
    elif second is None:
        say(told + describe_anatomy(model, anatomy, depth=depth))
    else:
        parts = ((FIRST, anatomy), (SECOND, second))
        say(told + "\n\n".join(describe_anatomy(f"{model} {part}/", each, depth=depth) for part, each in parts))


def list_selectors(anatomy: Anatomy, *, depth: int = 1) -> Iterator[str]:
    """What a spec can name: the layers of each stack, and the components that can be replaced, each with its layers."""
    for stack in anatomy.stacks:
        if stack.refusal is not None:
            continue
        yield f"{stack.name}[0:{stack.num_blocks}]"
        for name in stack.component_names():
            if name.count(".") < depth:
                layers = [
                    index
                    for index in range(stack.num_blocks)
                    if (found := stack.kind(index).find_component(name)) is not None and can_be_replaced(found)
                ]
                if layers:
                    yield f"{stack.name}[{indices_to_text(layers)}].{name}"


def can_be_replaced(component: Component) -> bool:
    """Whether `replace` takes a component: its outputs are known and token-shaped."""
    return component.refusal is None and bool(component.outputs)


def describe_anatomy(name: str, anatomy: Anatomy, *, depth: int = 1) -> str:
    """The tree of a model, to be read."""
    at = anatomy.dtype if anatomy.has_weights else f"as {anatomy.dtype}; no weights here"
    rows: list[list[str]] = []
    total = anatomy.num_parameters
    within = 0
    for stack in anatomy.stacks:
        parameters = sum(stack.kind(index).num_parameters for index in range(stack.num_blocks))
        within += parameters
        rows.append(
            [
                f"├─ {stack.name}[0:{stack.num_blocks}]",
                count_text(parameters),
                share_text(parameters, total),
                _note(stack),
            ]
        )
        rows += _describe_kinds(stack, depth)
    rows.append(["└─ everything else", count_text(total - within), share_text(total - within, total), ""])
    head = f"{name}: {anatomy.class_name}, {count_text(total)} parameters, {bytes_text(anatomy.size_bytes)} ({at})"
    lines = [head, table(rows, right={1, 2}, cut={0}, wrap={3})]
    if anatomy.example:
        sizes = ", ".join(f"{key} {value}" for key, value in anatomy.example)
        lines += ["", f"shares: of the model for stacks, of the block for components; FLOPs at {sizes}"]
    if anatomy.trace_failure is not None:
        lines += ["", f"{anatomy.trace_failure}; its stacks are traced when it first runs"]
    if anatomy.example or not anatomy.has_example_inputs:
        lines += ["", known_text(anatomy)]
    return "\n".join(lines)


def known_text(anatomy: Anatomy) -> str:
    """Whence what is said of a model is known."""
    match anatomy.known_from.split(" "):
        case ["call", time]:
            return f"known from one call, recorded on {time.partition('T')[0]}"
        case ["config"]:
            return "known from the config alone: inputs with which its forward runs were found by trying"
        case [""]:
            return "streams are unknown until it runs: no inputs were found by trying; `surgery learn` records a call"
    return "known from a row that ships"


def _note(stack: Stack) -> str:
    if stack.refusal is not None:
        return f"can't be edited: {stack.refusal}"
    return "streams unknown until run" if stack.streams is None else f"streams {', '.join(stack.streams)}"


def _describe_kinds(stack: Stack, depth: int) -> list[list[str]]:
    rows: list[list[str]] = []
    for number, kind in enumerate(stack.kinds):
        is_last = number == len(stack.kinds) - 1
        layers = indices_to_text(index for index, of in enumerate(stack.kind_of) if of == number)
        flops = f"{count_text(kind.flops)}FLOPs each" if kind.flops else ""
        missing = f"returns no {', no '.join(kind.missing_streams)}: last, or left out" if kind.missing_streams else ""
        note = "; ".join(text for text in (flops, missing) if text)
        rows.append(
            [f"│  {'└' if is_last else '├'}─ [{layers}] {kind.class_name}", count_text(kind.num_parameters), "", note]
        )
        guide = "│     " if is_last else "│  │  "
        rows += _describe_components(kind, guide, depth)
    return rows


def _describe_components(kind: BlockKind, guide: str, depth: int) -> list[list[str]]:
    shown = [component for component in kind.components if component.name.count(".") < depth]
    rows = []
    for component in shown:
        joint = "└─" if component is shown[-1] else "├─"
        share = share_text(component.num_parameters, kind.num_parameters)
        name = f"{guide}{joint} {component.name}  {component.class_name}"
        rows.append([name, count_text(component.num_parameters), share, describe_outputs(component)])
    return rows


def describe_outputs(component: Component) -> str:
    """The streams of a component with their widths, or why it can't be replaced."""
    if component.refusal is not None:
        return f"can't be replaced: {component.refusal}"
    outputs = [f"{out.stream} {out.in_channels} -> {out.out_channels}" for out in component.outputs]
    return ", ".join(outputs) or "outputs unknown until run"
