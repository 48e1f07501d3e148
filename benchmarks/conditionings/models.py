"""The models of the comparison: which there are, how they are trained, and the digits that they and the judge see."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from surgery.demo.drawn_emoji import draw_all_emoji
from surgery.errors import InputError
from surgery.training.dit.held_out_split import Split
from surgery.training.dit.pictures import read_pictures
from surgery.training.dit.read_config import load_config
from surgery.training.dit.run_data import HELD_OUT, prepare_data, write_held_out
from surgery.training.dit.train_request import GATED, TrainRequest
from surgery.training.dit.trained_folder import FACTS
from surgery.training.dit.training_run import train_model
from surgery.training.shelf import Shelf

CONFIGS = Path(__file__).parents[2] / "configs" / "digits"
FOUR = ("in_context", "cross_attention", "adaln_zero", "freq_gate")
OTHERS = ("adaln_zero_wide", "freq_gate_plain")  # as many parameters as freq_gate; the gate without the spectral loss
SEEDS = (0, 1, 2)


def name_of(config: str, seed: int) -> str:
    """Of the folder of a model."""
    return f"{config}-{seed}"


def train_all(out: Path, configs: Sequence[str] = (*FOUR, *OTHERS)) -> None:
    """Train every config from every seed into `out`, one after another; what is there stays, what was begun goes on."""
    for seed in SEEDS:
        for config in configs:
            folder = out / name_of(config, seed)
            if (folder / FACTS).exists():
                continue
            began = time.monotonic()
            request = TrainRequest(
                config=load_config(CONFIGS / f"{config}.yaml").overridden(seed=seed),
                out=folder,
                draw_emoji=draw_all_emoji,
                cache=out / "cache",
                log_gates=config.startswith(GATED),
            )
            loss = train_model(request).facts["validation"]["loss"]
            print(f"{folder.name}: held-out error {loss:.4f}, {time.monotonic() - began:.0f} s", flush=True)


def write_digits(out: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """All 1,797 digits as files of 8 x 8 pixels: their folder, themselves (N, 1, 8, 8) of 0 to 1, their classes."""
    config = load_config(CONFIGS / f"{FOUR[0]}.yaml")
    shelf = Shelf(out / "cache")
    data = prepare_data(config, read_pictures(config, shelf, draw_all_emoji), None, shelf)
    everything = replace(data, split=Split((), tuple(range(len(data.pictures)))))
    out.mkdir(parents=True, exist_ok=True)
    write_held_out(out, everything, config.data.size)
    files = sorted((out / HELD_OUT).glob("*.png"))
    if len(files) != len(data.numbers):
        raise InputError(f"{out / HELD_OUT} has {len(files)} pictures of {len(data.numbers)} digits; remove it")
    grey = np.stack([np.asarray(Image.open(file).convert("L"), dtype=np.float32) / 255 for file in files])
    return out / HELD_OUT, torch.from_numpy(grey)[:, None], data.numbers
