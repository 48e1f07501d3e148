"""A tiny stock pipeline on disk, and the command line in this process."""

import json
import os

import diffusers  # noqa: F401  (its logger keeps the standard error it is born with; CliRunner's are closed)
import pytest
import torch
from built_once import building_once
from diffusers import AutoencoderKL, PixArtAlphaPipeline
from draft_figures import drawing_drafts
from transformers import T5Config, T5EncoderModel
from typer.testing import CliRunner

from surgery.commands.main import app
from surgery.demo.training.architecture import build_scheduler, build_tokenizer
from surgery.demo.training.assemble import save_pipeline
from surgery.testing import build_tiny_model

PIXELS = 16
PIPELINE_CALL = ("height=16", "width=16", "use_resolution_binning=false", "clean_caption=false")


@pytest.fixture(scope="module", autouse=True)
def _what_is_not_looked_at_is_made_once_and_drawn_roughly():
    with building_once(), drawing_drafts():
        yield


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """The folder of a PixArtAlphaPipeline of 5 blocks that draws 16 x 16 pictures."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = build_tokenizer(["red apple", "blue heart"])
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )
    config = T5Config(vocab_size=len(tokenizer), d_model=12, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    pipe = PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(config),
        vae=autoencoder,
        transformer=build_tiny_model("pixart"),
        scheduler=build_scheduler(),
    )
    save_pipeline(pipe, folder)
    return folder


@pytest.fixture(scope="session")
def surgery_command():
    """Runs a command, `given` some standard input; the result has `exit_code`, `stdout` and `stderr`."""

    def run(*arguments, given=None):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=given)

    return run


@pytest.fixture(scope="session")
def draw(surgery_command):
    """`surgery generate ... --json` with the arguments that the tiny pipeline wants; returns the document."""

    def run(*arguments):
        result = surgery_command("generate", *arguments, *small_call(), "--json")
        assert result.exit_code == 0, result.stderr
        assert "\r" not in result.stderr, "a bar in a log"
        return json.loads(result.stdout)

    return run


def small_call():
    """Two steps of 16 x 16 pixels."""
    options = ["--steps", "2", "--guidance-scale", "2"]
    return [*options, *(part for pair in PIPELINE_CALL for part in ("--call", pair))]


@pytest.fixture
def write_spec(tmp_path, pipeline):
    """Writes a spec of one operation (or none) for the tiny pipeline; returns its path."""

    def write(name, operation=None, model=pipeline):
        head = "surgery: v1\n" + (f"model: {os.fspath(model)}\n" if model else "")
        path = tmp_path / name
        path.write_text(head + ("operations: []\n" if operation is None else f"operations:\n  - {operation}\n"))
        return path

    return write
