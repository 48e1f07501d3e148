"""`surgery learn MODEL`: record one real call of a model, so that everything about it is known from then on."""

from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.commands.drawing_options import (
    CallOption,
    DeviceOption,
    DtypeOption,
    GuidanceOption,
    HeightOption,
    StepsOption,
    WidthOption,
    pipeline_arguments,
)
from surgery.commands.inspection import known_text
from surgery.commands.output import JsonFlag, QuietFlag, print_json, say
from surgery.progress import quietly
from surgery.text_table import table

if TYPE_CHECKING:
    from surgery.anatomy.anatomy import Anatomy
    from surgery.calls.kept_calls import KeptCall


def run(
    model: Annotated[str, typer.Argument(help="A hub id, a pipeline folder, or demo; its weights are loaded.")],
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    height: HeightOption = None,
    width: WidthOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    call: CallOption = None,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> None:
    """Open the pipeline of a model, note what its transformer is given at the first step, and stop it there.

    Shapes, dtypes and kinds are kept in the cache, and no value of a float tensor: from then on streams, components and
    FLOPs of the model are known, from its config alone.
    """
    arguments = pipeline_arguments(call, steps, guidance_scale, height, width)
    from surgery.anatomy.sources import read_source_anew
    from surgery.experiment.run import RunRequest, open_run, source_with_pipeline
    from surgery.pipelines.learn import learn_call

    source = source_with_pipeline(model, "to record its call")
    with quietly(quiet):
        run = open_run(source, RunRequest(dtype=dtype, device=device, call=arguments), ())
        found = learn_call(run.pipe, run.call)
    anatomy = read_source_anew(source)
    if json:
        facts = {"class": anatomy.class_name, "recorded": found.recorded_at, "call": found.row, "sizes": found.sizes}
        print_json({"model": model, **facts, "known_from": anatomy.known_from})
    else:
        say(describe(model, anatomy, found))


def describe(model: str, anatomy: "Anatomy", found: "KeptCall") -> str:
    """What was recorded, to be read: a line an argument, and what is known of the model now."""
    rows = [[name, _form_text(form)] for name, form in (found.row or {}).items()]
    sizes = ", ".join(f"{name} {size}" for name, size in found.sizes.items())
    head = f"{model}: a call of its {anatomy.class_name} is kept, at {sizes}"
    return "\n".join([head, table(rows, indent="  ", wrap={1}), known_text(anatomy)])


def _form_text(form: Any) -> str:
    """A form of a row, as a person reads it."""
    return form if isinstance(form, str) else dumps(form).replace('"', "")
