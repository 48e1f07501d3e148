"""What `surgery export` says: the table of factors, texts for trainers, and the judgement of a config."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.commands.output import count_text
from surgery.export.target_text import LycorisText, TargetRequest, TargetText, TrainedLayer
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.export.judgement import Judgement
    from surgery.export.lokr_config import LokrPlan
    from surgery.export.targets import Target
    from surgery.export.verify_lokr import Verified
    from surgery.export.weighted_layers import WeightedLayers

SHOWN = 12  # blocks of a judged config; --json has all modules


def describe_plan(layers: "WeightedLayers", plan: "LokrPlan", verified: "Verified | None", layout: str) -> str:
    """The table of factors: asked, effective by width of the layers, and parameters; then what LyCORIS builds."""
    lines = []
    for part in layers.contributions:
        weights = ", ".join(f"{stream} x {weight:.3g}" for stream, weight in part.weights)
        ends = f"; measured to layer {part.num_measured - 1}" if part.num_measured < len(part.shares) else ""
        lines.append(f"{part.stack} of {layers.class_name}: {weights}{ends}")
        rows = [["layer", "share", "factor", "effective (width: factor)", "parameters"]]
        rows += [_row(layers, part.stack, block, plan) for block in range(len(part.shares))]
        lines.append(table(rows, indent="  ", right={0, 1, 4}, wrap={3}))
    lines.append(f"trained: {len(plan.asked)} modules, {plan.num_parameters:,} parameters in all")
    if plan.capped:
        lines.append(
            f"factors above 32 were lowered to 32 in {len(plan.capped)} rules: some layers could not be loaded "
            "again with more"
        )
    if layers.others:
        lines.append(f"not trained, as they were not profiled or not chosen: {', '.join(layers.others)}")
    if layers.grouped:
        lines.append(
            f"not trained, as LyCORIS before 4 makes misfits of depthwise convolutions: {', '.join(layers.grouped)}"
        )
    if verified is None:
        lines.append("not verified (--no-verify)")
    elif layout == "published":
        lines.append(
            f"LyCORIS {verified.lycoris} builds {verified.num_modules} modules of it with {verified.num_parameters:,} "
            "parameters, which is not what is asked: this layout is to compare with; `surgery export check` says why"
        )
    else:
        lines.append(f"verified: LyCORIS {verified.lycoris} builds exactly these modules, factors and parameters")
    return "\n".join(lines)


def _row(layers: "WeightedLayers", stack: str, block: int, plan: "LokrPlan") -> list[str]:
    from surgery.export.factors import count_lokr_parameters, effective_factor

    of_block = {
        module: factor for module, factor in plan.asked.items() if (module.stack, module.block) == (stack, block)
    }
    asked = sorted(set(of_block.values()))
    by_width: dict[int, dict[int, None]] = {}
    for module, factor in of_block.items():
        for width in module.shape[:2]:
            by_width.setdefault(width, {})[effective_factor(width, factor)] = None
    same = all(
        effective_factor(width, factor) == factor for module, factor in of_block.items() for width in module.shape[:2]
    )
    effective = "  ".join(f"{width}: {'|'.join(map(str, sorted(found)))}" for width, found in sorted(by_width.items()))
    share = "critical" if block in layers.critical.get(stack, ()) else f"{layers.share(stack, block):.3f}"
    parameters = sum(count_lokr_parameters(module.shape, factor) for module, factor in of_block.items())
    return [str(block), share, "|".join(map(str, asked)), "as asked" if same else effective, f"{parameters:,}"]


def describe_simpletuner(lines: Mapping[str, str]) -> str:
    """The lines of SimpleTuner's own config.json."""
    body = json.dumps(dict(lines), indent=2)[2:-2]
    return f"SimpleTuner's config.json must say:\n{body}"


def describe_written(target: "Target", request: TargetRequest, written: TargetText | LycorisText) -> str:
    """Of a LyCORIS config the factors and what was verified; of others their place, what is trained, what is lost."""
    if isinstance(written, LycorisText):
        plan = describe_plan(request.layers, request.plan, written.verified, request.layout)
        return f"{plan}\n{describe_simpletuner(written.lines)}" if written.lines else plan
    lines = [f"{target.name}: {target.granularity}; for {written.place}"]
    if written.layers:
        lines.append(describe_layers(written.layers))
    lines.append(f"lost: {written.lost}")
    if target.trainer is not None:
        lines.append(f"compared with {target.trainer.title} {target.trainer.version} on {target.trainer.compared}")
    return "\n".join(lines)


def describe_layers(layers: Sequence[TrainedLayer]) -> str:
    """What is trained of each layer, by its name in the trainer, and at which scale; empty columns are left out."""
    rows = [["layer", "share", "trained", "alpha / rank", "learning rate"]]
    rows += [
        [
            *(layer.name, f"{layer.share:.3f}", layer.trained),
            "" if layer.scale is None else f"{layer.scale:.4g}",
            "" if layer.learning_rate is None else f"{layer.learning_rate:.3g}",
        ]
        for layer in layers
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return table(list(zip(*columns, strict=True)), indent="  ", right=set(range(1, len(columns))) - {2})


def written_to_json(target: "Target", written: TargetText | LycorisText) -> dict[str, Any]:
    if isinstance(written, TargetText):
        text = {"place": written.place, "lost": written.lost, "text": written.text}
        layers = [asdict(layer) for layer in written.layers]
        return {"granularity": target.granularity, **text, "layers": layers, "verified": None}
    config = {"config": written.config, "simpletuner": written.lines}
    return {**config, **verified_to_json(written.verified)}


def plan_to_json(layers: "WeightedLayers", factors: Mapping[str, Any], plan: "LokrPlan") -> dict[str, Any]:
    return {
        "model_class": layers.class_name,
        "stacks": {
            part.stack: {
                "weights": dict(part.weights),
                "shares": list(part.shares),
                "critical": sorted(layers.critical.get(part.stack, ())),
                "factors": list(factors[part.stack]),
            }
            for part in layers.contributions
        },
        "modules": len(plan.asked),
        "parameters": plan.num_parameters,
        "capped": list(plan.capped),
    }


def verified_to_json(verified: "Verified | None") -> dict[str, Any]:
    if verified is None:
        return {"verified": None}
    return {
        "verified": {
            "lycoris": verified.lycoris,
            "modules": verified.num_modules,
            "parameters": verified.num_parameters,
        }
    }


def note_on_classes(judgement: "Judgement") -> str | None:
    """Whose classes were judged, where a config names classes."""
    from surgery.export.trainer_classes import say_whose_classes

    return say_whose_classes(judgement)


def describe_judgement(file: Path, class_name: str, judgement: "Judgement", faults: list[str]) -> str:
    """How many modules are trained as asked, the blocks that are not, and the faults."""
    lines = [f"{file} for {class_name}: {count_as_asked(judgement)}"]
    if judgement.failure is not None:
        lines.append(judgement.failure)
    rows = _rows_of_blocks(judgement)
    if rows:
        lines.append(table([["", "asked", "trained"], *rows[:SHOWN]], indent="  ", wrap={1, 2}))
    if len(rows) > SHOWN:
        lines.append(f"  and {len(rows) - SHOWN} more; --json lists every module")
    lines += [f"- {fault}" for fault in faults]
    if note_on_classes(judgement) is not None:
        lines.append(f"note: {note_on_classes(judgement)}")
    return "\n".join(lines)


def count_as_asked(judgement: "Judgement") -> str:
    asked = judgement.num_parameters_asked
    beside = f" instead of {asked:,}" if asked is not None and asked != judgement.num_parameters else ""
    unasked = sum(item.asked is None for item in judgement.differences)
    more = f", and {unasked} that were not asked for" if unasked else ""
    return (
        f"{judgement.num_as_asked} of {len(judgement.asked)} modules are trained as asked{more}; "
        f"{count_text(judgement.num_parameters)} parameters ({judgement.num_parameters:,}{beside}; "
        f"LyCORIS {judgement.lycoris})"
    )


def _rows_of_blocks(judgement: "Judgement") -> list[list[str]]:
    """By block (or module outside of one): the factors or ranks that were asked for and those that are trained."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for item in judgement.differences:
        parts = item.module.name.split(".")
        number = next((index for index, part in enumerate(parts) if part.isdecimal()), len(parts) - 1)
        asked, trained = found.setdefault(".".join(parts[: number + 1]), ({}, {}))
        asked[_brief(item.asked)] = None
        trained[_brief(item.trained)] = None
    return [[name, ", ".join(asked), ", ".join(trained)] for name, (asked, trained) in found.items()]


def _brief(option: Any) -> str:
    if option is None:
        return "nothing"
    if option.factor is not None and option.full_matrix:
        return f"factor {option.factor}"
    return f"{option.algo} of rank {option.dim}" + (f" and factor {option.factor}" if option.factor is not None else "")


def judgement_to_json(
    file: Path, judgement: "Judgement", faults: list[str], fix: Path | None, repaired: "Judgement | None"
) -> dict[str, Any]:
    return {
        "file": str(file),
        "lycoris": judgement.lycoris,
        "asked": len(judgement.asked),
        "as_asked": judgement.num_as_asked,
        "parameters": judgement.num_parameters,
        "parameters_asked": judgement.num_parameters_asked,
        "failure": judgement.failure,
        "faults": faults,
        "note": note_on_classes(judgement),
        "differences": [
            {
                "module": item.module.name,
                "asked": _brief(item.asked),
                "trained": _brief(item.trained),
                "cause": judgement.cause_of(item.module.name),
            }
            for item in judgement.differences
        ],
        "repaired": None
        if repaired is None
        else {
            "out": str(fix),
            "asked": len(repaired.asked),
            "as_asked": repaired.num_as_asked,
            "parameters": repaired.num_parameters,
        },
    }
