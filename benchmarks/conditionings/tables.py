"""`conditionings.json` -> the tables of docs/conditionings.md, in Markdown; numbers in them come from nowhere else."""

from collections.abc import Mapping, Sequence
from typing import Any

from answer import MEASURES, Facts, baseline_of, compare, judge_cut, loss_of, measured, of_config, variants_of
from models import FOUR, OTHERS

from surgery.metrics.intervals import Interval, mean_interval

CUTS = {"skips": "a block skipped", "components": "a component silenced", "painters": "the middle rebuilt"}
GATE = (("freq_gate", "adaln_zero"), ("freq_gate", "adaln_zero_wide"), ("freq_gate", "freq_gate_plain"))
DIGITS = {"error": 3, "right": 1, "frechet": 0}  # behind the point
Found = Mapping[str, Any]


def all_tables(found: Found) -> dict[str, str]:
    """Every table by its name, which the page has before and behind it as a comment."""
    return {
        "trained": trained_table(found),
        "lost": lost_table(found["models"]),
        "verdicts": verdict_table(found["models"]),
        "painters": painters_table(found["models"]),
        "gate": gate_table(found["models"]),
        "adapters": adapters_table(found["models"]),
    }


def trained_table(found: Found) -> str:
    """What each conditioning is before any cut."""
    rows = []
    for config in (*FOUR, *OTHERS):
        models = of_config(found["models"], config)
        if not models:
            continue
        drawn = [row for row in map(baseline_of, models) if "frechet" in row]
        rows.append(
            [
                config,
                f"{models[0]['parameters']:,}",
                f"{1000 * found['seconds_of_step'][config]:.0f} ms",
                str(len(models)),
                interval_text(mean_interval([model["loss"] for model in models]), 4),
                interval_text(mean_interval([row["frechet"]["value"] for row in drawn]), 0) if drawn else "",
                interval_text(mean_interval([100 * row["right"] for row in drawn]), 0) if drawn else "",
            ]
        )
    head = ["conditioning", "parameters", "a step", "seeds", "held-out loss", "Frechet distance", "right digits, %"]
    return markdown(head, rows)


def lost_table(models: Sequence[Facts]) -> str:
    """What the four lost by each family of cuts, least first by the first measure."""
    rows = []
    for cut, name in CUTS.items():
        for config in FOUR:
            rows.append([name, config, *(_loss_text(models, cut, measure, config) for measure in MEASURES)])
    return markdown(["cut", "conditioning", *(name for name, _ in MEASURES.values())], rows)


def verdict_table(models: Sequence[Facts]) -> str:
    """Who lost least, and by how much the others lost more."""
    rows = []
    for cut, name in CUTS.items():
        for measure, (title, _) in MEASURES.items():
            if not measured(models, FOUR, measure):
                continue
            verdict = judge_cut(models, FOUR, cut, measure)
            behind = "; ".join(f"{who} {interval_text(gap, DIGITS[measure])}" for who, gap in verdict.behind.items())
            rows.append([name, title, next(iter(verdict.losses)), behind, ", ".join(verdict.tied) or "none"])
    return markdown(["cut", "measure", "lost least", "lost so much more", "not told apart from it"], rows)


def painters_table(models: Sequence[Facts]) -> str:
    """The denoising error of each way to rebuild the middle, on the mean over seeds, and the right digits."""
    rows, drawn = [], measured(models, FOUR, "right")
    for how in dict.fromkeys(row["point"]["how"] for row in variants_of(models[0], "painters")):
        cells = [str(how)]
        for config in FOUR:
            found, seen = (_rows_at(some, config, "painters", {"how": how}) for some in (models, drawn))
            cells.append(f"{_mean(row['error']['value'] for row in found):.3f}, {_percent(seen)}")
        rows.append(cells)
    return markdown(["the middle", *FOUR], rows)


def adapters_table(models: Sequence[Facts]) -> str:
    """What silencing an adapter of the gate does, and when; by whether the spectral loss was there."""
    rows = []
    gated = [config for config in ("freq_gate", "freq_gate_plain") if of_config(models, config)]
    first = variants_of(of_config(models, gated[0])[0], "adapters")
    for point in [row["point"] for row in first]:
        cells = [f"{point['adapter']}, {point['how']}"]
        for config in gated:
            found = _rows_at(models, config, "adapters", point)
            seen = [row for row in found if "right" in row]
            cells += [interval_text(mean_interval([row["error"]["value"] for row in found]), 3), _percent(seen)]
        rows.append(cells)
    head = ["adapter, when", *(f"{config}: {what}" for config in gated for what in ("error", "right"))]
    return markdown(head, rows)


def gate_table(models: Sequence[Facts]) -> str:
    """By how much more the gate has of each number than what it is compared with, seed by seed."""
    rows = []
    for one, other in GATE:
        if not of_config(models, one) or not of_config(models, other):
            continue
        lost = [compare(models, one, other, lambda model, cut=cut: loss_of(model, cut, "error")) for cut in CUTS]
        held_out = compare(models, one, other, lambda model: float(model["loss"]))
        rows.append([f"{one} - {other}", interval_text(held_out, 4), *(interval_text(each, 3) for each in lost)])
    return markdown(["difference", "held-out loss", *CUTS.values()], rows)


def _loss_text(models: Sequence[Facts], cut: str, measure: str, config: str) -> str:
    if not measured(models, FOUR, measure):
        return "not measured"
    return interval_text(judge_cut(models, FOUR, cut, measure).losses[config], DIGITS[measure])


def _rows_at(models: Sequence[Facts], config: str, cut: str, point: Mapping[str, Any]) -> list[Facts]:
    """The rows of a config's models at one point of a sweep."""
    return [row for model in of_config(models, config) for row in variants_of(model, cut) if row["point"] == point]


def interval_text(interval: Interval, digits: int) -> str:
    """`0.12 (0.10 to 0.14)`."""
    if interval.low is None or interval.high is None:
        return f"{interval.value:.{digits}f}"
    return f"{interval.value:.{digits}f} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(values: Any) -> float:
    found = list(values)
    return float(sum(found) / len(found))


def _percent(rows: Sequence[Facts]) -> str:
    if not rows:
        return "not measured"
    return f"{100 * _mean(row['right'] for row in rows):.0f}%"
