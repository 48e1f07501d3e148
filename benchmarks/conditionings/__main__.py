"""Which conditioning survives layer surgery best? Four of them, trained on digits from three seeds each, and cut.

    python benchmarks/conditionings --out out/conditionings        all of it, about an hour on two cores
    python benchmarks/conditionings --shipped                      the four models that are here already, alone: minutes

What is done stays: the same command goes on. It writes `conditionings.json`, a table and a figure each into the folder;
with `--page` the tables and the figures go into docs/conditionings.md, the numbers into benchmarks/data, and the models
of seed 0 into benchmarks/conditionings/shipped.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cut import EVERYWHERE, OF_GATES, Bench, measure_cuts
from digit_judge import train_judge
from figures import all_figures
from models import FOUR, OTHERS, SEEDS, name_of, train_all, write_digits
from page import DATA, fill_page
from shipped import SHIPPED, WEIGHTS, ship
from steps import seconds_of_steps
from tables import all_tables

from surgery.files import write_whole
from surgery.report.plot_profile import render
from surgery.training.dit.trained_folder import FACTS

FOUND = "conditionings.json"


def main() -> None:
    """Train, cut, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/conditionings"))
    parser.add_argument("--shipped", action="store_true", help="cut the models that are here, and train none")
    parser.add_argument("--page", action="store_true", help="write the page, its data and the models that ship anew")
    options = parser.parse_args()
    found = of_shipped(options.out) if options.shipped else of_trained(options.out)
    write_whole(options.out / FOUND, json.dumps(found, indent=1) + "\n")
    tables, figures = all_tables(found), all_figures(found)
    for name, table in tables.items():
        print(f"\n{name}\n{table}")
    for name, figure in figures.items():
        write_whole(options.out / f"{name}.png", render(figure, "png"))
    if options.page:
        write_whole(DATA, json.dumps(found, indent=1) + "\n")
        fill_page(tables, figures)
        if not options.shipped:
            ship(options.out / "models", options.out / WEIGHTS)


def of_trained(out: Path) -> dict[str, Any]:
    """Everything: the judge, the models, their cuts."""
    weights = out / WEIGHTS
    folder, pictures, classes = write_digits(out / "digits")
    judged = out / "judge.json"
    if not weights.exists() or not judged.exists():
        write_whole(judged, json.dumps({"right": train_judge(pictures, classes, weights)}))
    train_all(out / "models")
    bench = Bench(weights, folder)
    models = [
        model_facts(out / "models" / name_of(config, seed), config, bench, out / "cuts")
        for seed in SEEDS
        for config in (*FOUR, *OTHERS)
    ]
    return {"judge": json.loads(judged.read_text()), "seconds_of_step": seconds_of_steps(), "models": models}


def of_shipped(out: Path) -> dict[str, Any]:
    """The same of the four models that are in the repository, with the judge that is beside them."""
    folder, _, _ = write_digits(out / "digits")
    bench = Bench(SHIPPED / WEIGHTS, folder)
    models = [model_facts(SHIPPED / config, config, bench, out / "shipped") for config in FOUR]
    return {"judge": {}, "seconds_of_step": seconds_of_steps(), "models": models}


def model_facts(folder: Path, config: str, bench: Bench, out: Path) -> dict[str, Any]:
    """What training knows of a model, and its rows: kept, once they are measured."""
    trained: Mapping[str, Any] = json.loads((folder / FACTS).read_text())
    cuts = (*EVERYWHERE, OF_GATES) if "gates" in trained else EVERYWHERE
    kept = out / f"{folder.name}.json"
    if not kept.exists():
        rows = measure_cuts(folder, cuts, bench, out / folder.name)
        write_whole(kept, json.dumps(rows))
    facts = {"config": config, "seed": trained["settings"]["seed"], "parameters": trained["parameters"]}
    facts |= {"steps": trained["steps"], "loss": trained["validation"]["loss"], "bins": trained["validation"]["bins"]}
    gates = {"gates": trained["gates"]} if "gates" in trained else {}
    return {**facts, **gates, "rows": json.loads(kept.read_text())}


if __name__ == "__main__":
    main()
