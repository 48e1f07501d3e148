"""`surgery generate SPEC|MODEL`: pictures with and without surgery, from the same noise."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.commands.output import JsonFlag, print_json
from surgery.errors import InputError

PromptOption = Annotated[list[str] | None, typer.Option("--prompt", "-p", help="A prompt; may be given several times.")]
PromptsOption = Annotated[Path | None, typer.Option(help="A text file with one prompt a line.")]


def run(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="SPEC|MODEL...", help="Specs, or compiled folders, of one model; or one model."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; it must be new or empty.")],
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    model: Annotated[str | None, typer.Option(help="The model, instead of the one that the spec names.")] = None,
    profile: Annotated[Path | None, typer.Option(help="File of means, instead of the spec's own.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Height in pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Width in pixels.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Prompt k starts from the noise of seed + k.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts drawn at once; part of the recipe.")] = 8,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto: float32 on the CPU, else bfloat16.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...; auto: a GPU where there is one.")] = "auto",
    call: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Another argument of the pipeline; the value is JSON, or else text."),
    ] = None,
    baseline: Annotated[bool, typer.Option(help="Draw the unedited model as well.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    json: JsonFlag = False,
) -> None:
    """Draw pictures of a model and of its variants: same prompts, same noise, a labelled contact sheet."""
    arguments = read_call_arguments(call or [])
    named = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "height": height, "width": width}
    arguments.update({name: value for name, value in named.items() if value is not None})
    from surgery.experiment.gallery import GalleryRequest, draw_gallery

    request = GalleryRequest(
        targets=tuple(targets),
        prompts=read_prompts(prompt or [], prompts),
        out=out,
        model=model,
        profile=profile,
        seed=seed,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        call=arguments,
        baseline=baseline,
        force=force,
    )
    gallery = draw_gallery(request)
    if json:
        print_json(gallery.to_json())
    else:
        typer.echo(gallery.describe())


def read_prompts(given: list[str], file: Path | None) -> tuple[str, ...]:
    """The prompts of the call and of a file, in this order.

    Raises:
        InputError: there are none, or the file can't be read.
    """
    found = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the prompts {file} can't be read: {error}") from None
        found += [line.strip() for line in lines if line.strip()]
        if not found:
            raise InputError(f"{file} holds no prompt; write one a line")
    if not found:
        raise InputError('there is no prompt; give --prompt "red apple", or --prompts FILE')
    return tuple(found)


def read_call_arguments(pairs: list[str]) -> dict[str, Any]:
    """`["clean_caption=false"]` -> `{"clean_caption": False}`; what is no JSON stays text.

    Raises:
        InputError: a pair has no equals sign.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(f'--call takes KEY=VALUE, not "{pair}"; write it like --call clean_caption=false')
        try:
            found[key.strip()] = json_format.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found
