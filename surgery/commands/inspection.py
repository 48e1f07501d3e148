"""`surgery inspect MODEL`: what a model is made of, and what a spec can name."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from surgery.anatomy.parts import Anatomy, Component, Kind, Stack
from surgery.commands.output import JsonFlag, bytes_text, count_text, print_json, share_text, table


def run(
    model: Annotated[
        str,
        typer.Argument(help="A hub id, a pipeline folder, a transformer folder (config.json is enough), or demo."),
    ],
    depth: Annotated[int, typer.Option(min=1, help="How deep to list components.")] = 1,
    json: JsonFlag = False,
) -> None:
    """Show the stacks, blocks, components and streams of a model; its weights are not read."""
    from surgery.anatomy.sources import inspect

    anatomy = inspect(model)
    if json:
        print_json(anatomy_to_json(anatomy))
    else:
        typer.echo(describe_anatomy(model, anatomy, depth=depth))


def anatomy_to_json(anatomy: Anatomy) -> dict[str, Any]:
    """Plain data of an anatomy, with the layers of each kind written out."""
    document = asdict(anatomy)
    document["example"] = dict(anatomy.example)
    return document


def describe_anatomy(name: str, anatomy: Anatomy, *, depth: int = 1) -> str:
    """The tree of a model, to be read."""
    at = anatomy.dtype if anatomy.has_weights else f"as {anatomy.dtype}; no weights here"
    size = f"{count_text(anatomy.num_parameters)} parameters, {bytes_text(anatomy.size_bytes)} ({at})"
    lines = [f"{name}: {anatomy.class_name}, {size}"]
    for stack in anatomy.stacks:
        lines += ["", *_describe_stack(stack, anatomy, depth)]
    if anatomy.example:
        sizes = ", ".join(f"{key} {value}" for key, value in anatomy.example)
        lines += ["", f"FLOPs and streams at {sizes}"]
    return "\n".join(lines)


def _describe_stack(stack: Stack, anatomy: Anatomy, depth: int) -> list[str]:
    parameters = sum(stack.kind(index).num_parameters for index in range(stack.num_blocks))
    streams = "unknown until run" if stack.streams is None else ", ".join(stack.streams)
    share = share_text(parameters, anatomy.num_parameters)
    head = f"{stack.name}[0:{stack.num_blocks}]  {share} of the parameters; streams: {streams}"
    lines = [head]
    if stack.refusal is not None:
        lines.append(f"  can't be edited: {stack.refusal}")
    for number, kind in enumerate(stack.kinds):
        indices = [index for index, of in enumerate(stack.kind_of) if of == number]
        lines += _describe_kind(kind, ranges_text(indices), depth)
    return lines


def _describe_kind(kind: Kind, where: str, depth: int) -> list[str]:
    flops = f", {count_text(kind.flops)}FLOPs" if kind.flops else ""
    lines = [f"  [{where}]  {kind.class_name}: {count_text(kind.num_parameters)} parameters{flops} a block"]
    if kind.missing_streams:
        lines.append(f"    returns no {', no '.join(kind.missing_streams)}: it can only run last, or be left out")
    shown = [component for component in kind.components if component.name.count(".") < depth]
    rows = [_component_row(component, kind) for component in shown]
    return [*lines, table(rows, indent="    ", right=frozenset({2}))] if rows else lines


def _component_row(component: Component, kind: Kind) -> list[str]:
    outputs = ", ".join(f"{out.stream} ({out.in_channels} -> {out.out_channels})" for out in component.outputs)
    note = outputs or (f"can't be replaced: {component.refusal}" if component.refusal else "outputs unknown until run")
    return [component.name, component.class_name, share_text(component.num_parameters, kind.num_parameters), note]


def ranges_text(indices: list[int]) -> str:
    """`[0, 1, 2, 5]` -> `0:3, 5`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}:{run[-1] + 1}" for run in runs)
