"""`surgery demo`: the bundled pipeline before and after surgery: pictures, a pruned copy, numbers, a page, a config."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.bundled import DEMO_PROMPTS, demo_prompt_file, demo_specs
from surgery.commands.output import JsonFlag, QuietFlag, print_json, say
from surgery.outputs import refuse_folder
from surgery.progress import quietly, say_stage
from surgery.written import read_written

if TYPE_CHECKING:
    from surgery.demo.pruned import StockPictures
    from surgery.demo.share import SharedFiles
    from surgery.experiment.evaluation import Evaluation
    from surgery.experiment.gallery import Gallery

PRUNED = "skip"  # the spec that is also compiled to a checkpoint
NUM_MEASURED = 40  # prompts: the fewest with an interval of the Frechet distance
BINS = 5
NUM_PROFILED = 4  # prompts
PROFILED_STEPS = 10  # the fewest that leave none of the bins empty


def run(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Prompt k starts from the noise of seed + k.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not the demo's own.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Draw the bundled pipeline under the specs of specs/demo, prune it to a checkpoint, and measure the variants.

    It ends with a page to share (page.html) and a training config (lycoris_config.json). Three to six minutes on two
    cores, no downloads.
    """
    with quietly(quiet):
        gallery, stock, measured, shared = run_stages(out, seed, force=force)
    if json:
        found = {**gallery.to_json(), "pruned": stock.to_json(), "measured": measured.to_json()}
        print_json({**found, **shared.to_json()})
        return
    from surgery.report.evaluation_table import evaluation_text

    say(f"{gallery.describe()}\n{stock.describe()}")
    say(f"{out / 'measured'}: the variants measured on {NUM_MEASURED} prompts; numbers, a figure, pictures")
    say(f"{shared.describe()}\n")
    say(evaluation_text(measured))


def run_stages(out: Path, seed: int, *, force: bool) -> tuple["Gallery", "StockPictures", "Evaluation", "SharedFiles"]:
    """All that the demo does, each part announced with the time that it takes on two cores."""
    is_own = read_written(out, "generate") is not None
    refuse_folder(out, "generate", force=force or is_own)
    num_specs = len(demo_specs())
    say_stage(f"1 of 4: drawing {len(DEMO_PROMPTS)} prompts with the model and {num_specs} specs (half a minute)")
    from surgery.demo.pruned import draw_pruned
    from surgery.demo.share import refuse_others, write_shared
    from surgery.experiment.gallery import GalleryRequest, draw_gallery

    refuse_others(out)
    targets = tuple(str(path) for path in demo_specs())
    gallery = draw_gallery(GalleryRequest(targets=targets, prompts=DEMO_PROMPTS, out=out, seed=seed, force=True))
    spec = next(path for path in demo_specs() if path.stem == PRUNED)
    say_stage(f"2 of 4: {spec.name} as a pruned checkpoint, drawn by diffusers alone (half a minute)")
    stock = draw_pruned(spec, out, gallery.recipe)
    say_stage(f"3 of 4: measuring {num_specs} variants and three controls on {NUM_MEASURED} prompts (2 to 5 minutes)")
    measured = measure_variants(out / "measured", seed)
    say_stage("4 of 4: the page, and a training config from a short profile (a quarter of a minute)")
    prompts = DEMO_PROMPTS[:NUM_PROFILED]
    shared = write_shared(out, out / "measured", prompts, steps=PROFILED_STEPS, bins=BINS, seed=seed)
    return gallery, stock, measured, shared


def measure_variants(out: Path, seed: int) -> "Evaluation":
    """The same specs evaluated on more prompts; the numbers, their figure and a sheet are written to a folder."""
    from surgery.demo.bundled_judges import bundled_judges
    from surgery.experiment.evaluation import EvaluationRequest
    from surgery.experiment.judges import JudgeRequest
    from surgery.experiment.prompts import PromptSet, read_prompt_file
    from surgery.report.evaluation_folder import evaluate_into

    prompts = PromptSet(read_prompt_file(demo_prompt_file()).prompts[:NUM_MEASURED])
    judges = JudgeRequest(bundled=bundled_judges())
    specs = tuple(str(path) for path in demo_specs())
    request = EvaluationRequest(specs=specs, prompts=prompts, out=out, judges=judges, seed=seed, bins=BINS)
    found, _ = evaluate_into(request, "all", force=True)
    return found
