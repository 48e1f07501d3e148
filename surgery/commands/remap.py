"""`surgery remap LORA --spec SPEC --out FILE`: an adapter of the original, for the pruned checkpoint of a spec."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.commands.output import JsonFlag, bytes_text, print_json, say
from surgery.commands.spec_options import MeansOption, TransformerOption
from surgery.errors import InputError
from surgery.plan.planned import PlannedSource
from surgery.plan.planned_pair import AnyPlannedSource, parts_of
from surgery.publish.planned_folder import plan_spec_or_folder
from surgery.spec.selector import FIRST, SECOND, indices_to_text
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.checkpoint.remap import Fallen
    from surgery.publish.remapped_lora import RemappedLora

SHOWN = 12  # lines of what fell away; --json has all


def run(
    lora: Annotated[
        Path, typer.Argument(help="A LoRA or LyCORIS file (LoKr, LoHa, DoRA) of the original: .safetensors.")
    ],
    spec: Annotated[Path, typer.Option(help="The spec that the checkpoint is compiled from, or its folder.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    model: Annotated[str | None, typer.Option(help="The original, instead of the one that the spec names.")] = None,
    profile: MeansOption = None,
    transformer: TransformerOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: JsonFlag = False,
) -> None:
    """Rename a LoRA of the original for the pruned model that `surgery compile SPEC --to checkpoint` writes.

    Layers are renumbered and copied as the checkpoint's are. What has no place there falls away, and is listed.
    The graph backend needs none of this: its layers keep their names.
    """
    from surgery.publish.remapped_lora import refuse_out, remap_lora

    refuse_out(out, lora, force=force)
    planned = planned_transformer(plan_spec_or_folder(spec, model=model, profile=profile), transformer)
    remapped = remap_lora(planned, lora, out, force=force)
    print_json(remapped_to_json(remapped)) if json else say(describe_remapped(remapped))


def planned_transformer(planned: AnyPlannedSource, transformer: str | None) -> PlannedSource:
    """What is planned for the transformer that an adapter is of.

    Raises:
        InputError: the spec edits two, and none is named; or it leaves the one that is named as it is.
    """
    parts = {each.source.part: each for each in parts_of(planned)}
    if transformer is None and len(parts) > 1:
        raise InputError(
            "the spec edits two transformers, and an adapter is of one of them; say of which: "
            f"--transformer {FIRST} or --transformer {SECOND}"
        )
    found = parts.get(transformer or FIRST)
    if found is None:
        if planned.source.has_second:
            raise InputError(f"the spec leaves {transformer} as it is, and so are its adapters: use them as they are")
        raise InputError(f"{planned.source.name} has one transformer; leave --transformer out")
    return found


def remapped_to_json(done: "RemappedLora") -> dict[str, Any]:
    """The document of `--json`: the recipe, where each module is now, and all that fell away."""
    return {
        **done.recipe,
        "out": str(done.out),
        "bytes": done.size_bytes,
        "modules": {module: list(places) for module, places in done.remapped.modules.items()},
        "fallen": [
            {"module": item.where, "position": item.position, "reason": item.reason, "tensors": list(item.tensors)}
            for item in done.remapped.fallen
        ],
        "not_of_the_model": list(done.remapped.others),
        "unknown_modules": list(done.remapped.unknown),
    }


def describe_remapped(done: "RemappedLora") -> str:
    """What was written, what fell away and why, and how it is loaded."""
    counts = done.recipe["tensors"]
    lines = [
        f"{done.out}: {counts['after']} tensors, {bytes_text(done.size_bytes)}, "
        f"from {counts['before']} of {done.file.path}"
    ]
    if done.stale:
        lines.append(f"  {', '.join(done.stale)} in its header was of other contents, and is left out")
    others = done.remapped.others
    if others:
        shown = ", ".join(others[:2]) + ", ..." * (len(others) > 2)
        lines.append(f"  {len(others)} of no module of the transformer are kept as they are: {shown}")
    unknown = done.remapped.unknown
    if unknown:
        shown = ", ".join(unknown[:2]) + ", ..." * (len(unknown) > 2)
        lines.append(
            f"  {len(unknown)} go by their layers alone: the class has no modules of these names, and whether the "
            f"model has them under others is not known: {shown}"
        )
    if not done.remapped.fallen:
        return "\n".join([*lines, "nothing fell away"])
    rows = list_fallen(done.remapped.fallen)
    lines += [f"{counts['fallen']} tensors fell away:", *table(rows[:SHOWN], indent="  ", wrap={0, 2}).splitlines()]
    if len(rows) > SHOWN:
        lines.append(f"  and {len(rows) - SHOWN} lines more; --json lists all")
    return "\n".join(lines)


def list_fallen(fallen: Sequence["Fallen"]) -> list[list[str]]:
    """A row for each reason and module, with the layers as a spec names them: `transformer_blocks[1, 3:5].attn`."""
    layers: dict[tuple[str, str, str], set[int]] = {}
    tensors: dict[tuple[str, str, str], set[str]] = {}
    for item in fallen:
        inside = "" if item.position is None else item.inside
        key = (item.stack, inside, item.reason)
        layers.setdefault(key, set()).add(item.index)
        tensors.setdefault(key, set()).update(item.tensors)
    rows = []
    for (stack, inside, reason), indices in layers.items():
        where = ".".join(filter(None, (f"{stack}[{indices_to_text(indices)}]", inside)))
        count = len(tensors[stack, inside, reason])
        rows.append([where, f"{count} tensor{'s' * (count > 1)}", reason])
    return rows
