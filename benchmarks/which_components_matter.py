"""Which components of the bundled pipeline matter, by three kinds of metric, and how far these agree.

Every component (attn1, attn2, ff) of every block is replaced by zero in turn, and `surgery evaluate` measures the
variants. Printed: the most and least important, Spearman's rank correlation of each pair of metrics with an interval
(grouped jackknife over prompts), and how many prompts each metric takes to tell the more important half of the
components from the less important one.
"""

import argparse
import functools
import itertools
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr, t

from surgery.demo.bundled_judges import bundled_judges
from surgery.demo.pictures import list_emoji
from surgery.experiment.evaluation import Evaluation, EvaluationRequest, run_evaluation
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet, read_prompt_file
from surgery.metrics.feature_cache import features_of
from surgery.metrics.feature_sets import Features
from surgery.metrics.frechet import frechet_distance
from surgery.metrics.intervals import grouped_jackknife

BLOCKS, COMPONENTS = range(12), ("attn1", "attn2", "ff")
NUM_PROMPTS = 160
COUNTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
PUBLISHED = {"attn1": "fid_individual_MSA.csv", "attn2": "fid_individual_MCA.csv", "ff": "fid_individual_MLP.csv"}
DRAWS = 200
Values = NDArray[np.float64]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, help="a file; default: captions of the training pictures, drawn")
    parser.add_argument("--count", type=int, default=NUM_PROMPTS, help="how many captions are drawn")
    parser.add_argument("--published", type=Path, help="a folder with FID by layer of PixArt-alpha (layer,value)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--bins", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/components"))
    options = parser.parse_args()
    prompts = PromptSet(draw_captions(options.count)) if options.prompts is None else read_prompt_file(options.prompts)
    with tempfile.TemporaryDirectory() as name:
        specs = write_specs(Path(name))
        judges = JudgeRequest(clip="none", bundled=bundled_judges())
        request = EvaluationRequest(
            specs=tuple(specs),
            prompts=prompts,
            out=options.out,
            judges=judges,
            bins=options.bins,
            call={"num_inference_steps": options.steps},
        )
        found = run_evaluation(request)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "components.json").write_text(json.dumps(found.to_json(), indent=1))
        report(found, prompts, options.out, options.published)


def draw_captions(count: int) -> tuple[str, ...]:
    """Captions of the emoji that the bundled pipeline was trained on, drawn with a fixed seed."""
    return tuple(item.caption for item in random.Random(0).sample(list_emoji(), count))


def write_specs(folder: Path) -> list[str]:
    """A spec a component, named as `attn1-03`."""
    files = []
    for component, block in itertools.product(COMPONENTS, BLOCKS):
        file = folder / f"{component}-{block:02d}.yaml"
        operation = f'replace: {{component: "transformer_blocks[{block}].{component}", with: zero}}'
        file.write_text(f"surgery: v1\nmodel: demo\noperations:\n  - {operation}\n")
        files.append(str(file))
    return files


def report(found: Evaluation, prompts: PromptSet, out: Path, published: Path | None) -> None:
    """Ranks, agreement, and the prompts that each metric takes."""
    rows = [row for row in found.rows if row.kind == "variant"]
    names = [row.name for row in rows]
    damage = {  # by metric (components, prompts), more is worse
        "denoising error": np.stack([row.errors.mean(1) for row in rows if row.errors is not None]),
        "feature cosine": 1 - np.stack([values_of(row.scores, "cosine") for row in rows]),
        "SSIM": 1 - np.stack([values_of(row.scores, "ssim") for row in rows]),
    }
    extractor = bundled_judges().extractor("cpu")
    cache = out / "store"
    features = [features_of(row.pictures, extractor, cache=cache) for row in rows]
    baseline = features_of(found.row("baseline").pictures, extractor, cache=cache)
    everyone = np.arange(len(prompts.prompts))
    order = {name: [names[i] for i in np.argsort(-values.mean(1))] for name, values in damage.items()}
    distances = frechet_by_component(features, baseline, everyone)
    order["Frechet distance"] = [names[i] for i in np.argsort(-distances)]
    print(f"{len(names)} components, {len(everyone)} prompts")
    for metric, ranked in order.items():
        print(f"{metric}: most {', '.join(ranked[:8])}; least {', '.join(ranked[-6:])}")
    means = {**{name: values.mean(1) for name, values in damage.items()}, "Frechet distance": distances}
    for metric, values in means.items():
        print(f"{metric}, by component: {describe_components(names, values)}")
        if published is not None:
            print(f"{metric}, ranks beside PixArt-alpha's FID at equal depth: {beside(names, values, published)}")
    for one, other in itertools.combinations((*damage, "Frechet distance"), 2):
        print(agreement(one, other, damage, features, baseline, len(everyone)))
    for metric, values in damage.items():
        print(f"{metric}: {prompts_needed(values)} prompts tell the halves apart in 95% of {DRAWS} draws")
    for metric in order:
        means_of = functools.partial(means_over, metric, damage, features, baseline)
        print(f"{metric}: {prompts_for_halves(means_of, len(everyone))} prompts put 95% of components into their half")


def describe_components(names: list[str], values: Values) -> str:
    """Every value, by component and block."""
    by_name = dict(zip(names, values, strict=True))
    rows = (f"{part} " + " ".join(f"{by_name[f'{part}-{block:02d}']:.3g}" for block in BLOCKS) for part in COMPONENTS)
    return "; ".join(rows)


def beside(names: list[str], values: Values, published: Path) -> str:
    """Spearman's correlation with the published curves, read at the depth of each block, by component."""
    by_name = dict(zip(names, values, strict=True))
    found = []
    for part, file in PUBLISHED.items():
        curve = np.genfromtxt(published / file, delimiter=",", names=True)["value"]
        theirs = np.interp(np.linspace(0, 1, len(BLOCKS)), np.linspace(0, 1, len(curve)), curve)
        own = [by_name[f"{part}-{block:02d}"] for block in BLOCKS]
        found.append(f"{part} {spearmanr(own, theirs).statistic:.2f}")
    return ", ".join(found)


def values_of(scores: object, kind: str) -> Values:
    """The number of each prompt, of a metric of this kind."""
    values = next(score.values for score in scores if score.metric.kind == kind)  # type: ignore[attr-defined]
    return np.asarray(values)


def frechet_by_component(features: list[Features], baseline: Features, rows: NDArray[np.intp]) -> Values:
    """The distance of each component's pictures from the baseline's, over some prompts."""
    own = baseline.take(rows)
    return np.array([frechet_distance(item.take(rows), own) for item in features])


def means_over(
    metric: str, damage: dict[str, Values], features: list[Features], baseline: Features, rows: NDArray[np.intp]
) -> Values:
    """The damage by each component over some prompts."""
    if metric in damage:
        return damage[metric][:, rows].mean(1)
    return frechet_by_component(features, baseline, rows)


def agreement(
    one: str, other: str, damage: dict[str, Values], features: list[Features], baseline: Features, num: int
) -> str:
    """Spearman's correlation of two metrics over the components."""

    def correlation(rows: NDArray[np.intp]) -> float:
        first, second = (means_over(metric, damage, features, baseline, rows) for metric in (one, other))
        return float(spearmanr(first, second).statistic)

    found = grouped_jackknife(correlation, num)
    low, high = max(found.low or -1.0, -1.0), min(found.high or 1.0, 1.0)
    return f"{one} and {other}: rank correlation {found.value:.3f} ({low:.3f} to {high:.3f})"


def prompts_needed(values: Values) -> int | str:
    """The fewest prompts whose 95% interval of (worse half - better half) is above zero in 95% of draws."""
    worse = values.mean(1) >= np.median(values.mean(1))
    gaps = values[worse].mean(0) - values[~worse].mean(0)  # one a prompt
    rng = np.random.default_rng(0)
    for count in (count for count in COUNTS if count < len(gaps)):
        draws = np.stack([rng.choice(gaps, count, replace=False) for _ in range(DRAWS)])
        half = t.ppf(0.975, count - 1) * draws.std(1, ddof=1) / np.sqrt(count)
        if (draws.mean(1) - half > 0).mean() >= 0.95:
            return count
    return f"more than {len(gaps)}"


def prompts_for_halves(means_of: Callable[[NDArray[np.intp]], Values], num: int) -> int | str:
    """The fewest prompts that put 95% of the components into the half that all prompts put them into, on average."""
    whole = means_of(np.arange(num))
    worse = whole >= np.median(whole)
    rng = np.random.default_rng(0)
    for count in (count for count in COUNTS if count < num):
        shares = []
        for _ in range(10):
            found = means_of(rng.choice(num, count, replace=False))
            shares.append(((found >= np.median(found)) == worse).mean())
        if np.mean(shares) >= 0.95:
            return count
    return f"more than {num}"


if __name__ == "__main__":
    main()
