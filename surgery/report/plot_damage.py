"""Maps of damage -> files of figures, one for each stack; and what they say, in words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from surgery.experiment.damage_agreement import Agreement, AngleMap, answer, answers_by_time
from surgery.experiment.damage_map import Damage, DamageMap
from surgery.metrics.intervals import Interval
from surgery.outputs import added_files
from surgery.report.damage_figures import draw_damage
from surgery.report.panels import bin_labels
from surgery.report.plot_profile import COMMAND, Format, render
from surgery.report.themes import THEMES, ThemeName
from surgery.text_table import table

KIND = "damage"


def plot_damage(
    damage: Damage,
    out: Path,
    *,
    angles: Sequence[AngleMap] = (),
    agreements: Sequence[Agreement] = (),
    file_format: Format = "png",
    themes: Sequence[ThemeName] = ("light",),
    force: bool = False,
) -> list[Path]:
    """Write a figure for each stack into a folder, damage_STACK.png or damage_STACK_dark.png; what was written.

    Raises:
        InputError: the folder can't be written to, or has another figure of such a name, and there is no `force`.
    """
    written = []
    with added_files(out, COMMAND, force=force, beside_others=True) as folder:
        for stack in damage.stacks:
            beside = [one for one in angles if one.stack == stack]
            found = [one for one in agreements if one.stack == stack]
            for name in themes:
                file = f"{KIND}_{stack}{'' if name == 'light' else f'_{name}'}.{file_format}"
                figure = draw_damage(damage, stack, THEMES[name], beside, found)
                (folder / file).write_bytes(render(figure, file_format))
                written.append(out / file)
    return written


def damage_text(damage: Damage) -> str:
    """Where each edit costs most and least, and which rows are in no map."""
    rows = [["", "edit", "layers", "costs least", "costs most"]]
    rows += [[found.stack, found.what, str(len(found.layers)), *_extremes(found)] for found in damage.maps]
    num = f"N = {damage.num_prompts} prompts"
    is_sure = all(np.isfinite(found.high[~np.isnan(found.errors)]).all() for found in damage.maps)
    lines = [table(rows, right={2}, wrap={1}), f"{num}; +- is half of the 95% interval" if is_sure else num]
    reasons = dict.fromkeys(damage.left_out.values())
    for reason in reasons:
        names = [name for name, why in damage.left_out.items() if why == reason]
        lines.append(f"left out: {', '.join(names)}: {reason}")
    return "\n".join(lines)


def _extremes(found: DamageMap) -> list[str]:
    """The cells of least and most damage: `0.012+-0.001 layer 5 at 0.9-1.0`."""
    labels = bin_labels(len(found.errors))
    texts = []
    for place in (np.nanargmin(found.errors), np.nanargmax(found.errors)):
        number, layer = divmod(int(place), found.errors.shape[1])
        half = (found.high[number, layer] - found.low[number, layer]) / 2
        shown = "" if np.isnan(half) else f"+-{half:.2g}"
        texts.append(f"{found.errors[number, layer]:.3g}{shown} layer {layer} at {labels[number]}")
    return texts


def agreement_text(agreements: Sequence[Agreement], num_bins: int) -> str:
    """Does angular distance predict damage, and at which times: the correlations of each edit, then the answer."""
    lines = [
        "Does angular distance predict damage? Spearman's rank correlation over layers; in brackets the 95% interval "
        "from drawing layers anew, each with all its timesteps"
    ]
    for stack, stream in dict.fromkeys((one.stack, one.stream) for one in agreements):
        found = [one for one in agreements if (one.stack, one.stream) == (stack, stream)]
        rows = [["timestep", *(one.what for one in found)]]
        rows += [
            [label, *(_cell(one.by_bin[number]) for one in found)] for number, label in enumerate(bin_labels(num_bins))
        ]
        rows.append(["all times", *(_cell(one.all_times) for one in found)])
        rows.append(["all cells", *(_cell(one.all_cells) for one in found)])
        lines += [f"{stack}, {stream}", table(rows, indent="  ", wrap=range(len(rows[0])))]
        lines += [f"  {one.what}: {answer_text(one)}" for one in found]
    return "\n".join(lines)


def answer_text(agreement: Agreement) -> str:
    """`over all times yes; at 0.0-0.4 yes, at 0.4-1.0 not shown`."""
    labels = bin_labels(len(agreement.by_bin))
    runs = [
        f"at {labels[run.start].split('-')[0]}-{labels[run.stop - 1].split('-')[1]} {said}"
        for run, said in answers_by_time(agreement.by_bin)
    ]
    return f"over all times {answer(agreement.all_times)}; {', '.join(runs)}"


def _cell(found: Interval | None) -> str:
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
