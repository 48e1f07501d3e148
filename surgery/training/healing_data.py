"""Prompts, or pictures with captions -> what healing learns from and what it is measured by, kept on disk.

Prompts alone are enough: the teacher draws what is learnt from. Chunks of prompts are drawn and encoded together, and
kept under the hash of all that they depend on, so that another run with the same prompts finds them.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from surgery.errors import InputError, RefusedError
from surgery.experiment.captions import CaptionedPicture
from surgery.files import hash_file
from surgery.metrics.open_picture import open_picture
from surgery.pipelines.conditions import is_class_conditional
from surgery.pipelines.encoded import encode_picture
from surgery.pipelines.noised import pack_latents, picture_size
from surgery.progress import show_progress
from surgery.training.call_form import CallForm, conditions_of_call, note_call
from surgery.training.shelf import Rows, Shelf, rows_of
from surgery.training.trajectory_latents import draw_latents

LEAST = 2  # prompts to learn from, and to measure by
NO_TEXT = ""


@dataclass(frozen=True)
class Split:
    """What is learnt from, and what only measures: prompts, or pictures with captions."""

    learnt: tuple[Any, ...]
    held_out: tuple[Any, ...]


def split_prompts(prompts: Sequence[str], held_out: Sequence[str] | None, share: float, seed: int) -> Split:
    """Prompts, each once; without `held_out` ones a share of them is held out, by chance.

    Raises:
        InputError: there are too few.
    """
    own = tuple(dict.fromkeys(prompts))
    measured = _drawn(own, share, seed) if held_out is None else tuple(dict.fromkeys(held_out))
    learnt = tuple(prompt for prompt in own if prompt not in set(measured))
    _refuse_few(learnt, measured, "prompts")
    return Split(learnt, measured)


def split_pictures(pictures: Sequence[CaptionedPicture], share: float, seed: int) -> Split:
    """Pictures with captions; all captions of a picture are on one side.

    Raises:
        InputError: there are too few.
    """
    files = tuple(dict.fromkeys(picture.file for picture in pictures))
    chosen = set(_drawn(files, share, seed))
    learnt = tuple(picture for picture in pictures if picture.file not in chosen)
    held_out = tuple(picture for picture in pictures if picture.file in chosen)
    _refuse_few(learnt, held_out, "pictures")
    return Split(learnt, held_out)


def _drawn(items: Sequence[Any], share: float, seed: int) -> tuple[Any, ...]:
    count = max(LEAST, round(share * len(items)))
    if len(items) < count + LEAST:
        return ()
    places = sorted(random.Random(seed).sample(range(len(items)), count))
    return tuple(items[place] for place in places)


def _refuse_few(learnt: Sequence[Any], held_out: Sequence[Any], what: str) -> None:
    if len(held_out) < LEAST or len(learnt) < LEAST:
        raise InputError(
            f"there are too few {what}: {len(learnt)} to learn from and {len(held_out)} to measure by, and {LEAST} of "
            f"each are the least; give more, or others to measure by with --held-out"
        )


@dataclass(frozen=True)
class Maker:
    """Makes and keeps latents and conditions. `recipe` is what they all depend on; `chunk` are made at once."""

    pipe: Any
    form: CallForm
    shelf: Shelf
    recipe: Mapping[str, Any]
    call: Mapping[str, Any]
    chunk: int
    seed: int

    def texts(self, prompts: Sequence[str]) -> Rows:
        """The conditions of prompts, in their order, and of the empty one behind them where it may be asked for."""
        chunks = [*self._chunks(prompts), *([] if is_class_conditional(self.pipe) else [(NO_TEXT,)])]
        files = [
            self.shelf.find_or_make({**self.recipe, "texts": list(chunk)}, partial(self._encode, chunk))
            for chunk in chunks
        ]
        self._refuse_lengths(files)
        return rows_of(files, [len(chunk) for chunk in chunks])

    def trajectories(self, prompts: Sequence[str], count: int, label: str) -> Rows:
        """`count` latents of each prompt: all prompts with their first noise, then all with their second, ..."""
        chunks = [(number, chunk) for number in range(count) for chunk in self._chunks(prompts)]
        files = []
        with show_progress(len(prompts) * count, unit="latent", label=label) as meter:
            for number, chunk in chunks:
                seeds = [seed_of_latents(self.seed, prompt, number) for prompt in chunk]
                recipe = {**self.recipe, "latents": list(chunk), "seeds": seeds}
                files.append(self.shelf.find_or_make(recipe, partial(self._draw, chunk, seeds)))
                meter.advance(len(chunk))
        return rows_of(files, [len(chunk) for _, chunk in chunks])

    def encoded(self, files: Sequence[Path], label: str) -> Rows:
        """The latents of pictures, by the pipeline's own autoencoder."""
        found = []
        with show_progress(len(files), unit="picture", label=label) as meter:
            for file in files:
                recipe = {**self.recipe, "picture": hash_file(file), "seed": self.seed}
                found.append(self.shelf.find_or_make(recipe, partial(self._open, file)))
                meter.advance(1)
        return rows_of(found, [1] * len(found))

    def _chunks(self, prompts: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for start in range(0, len(prompts), self.chunk):
            yield tuple(prompts[start : start + self.chunk])

    def _encode(self, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        noted = note_call(self.pipe, prompts, self.call)
        return {str(number): rows for number, rows in conditions_of_call(self.form, noted).items()}

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        return {"latents": draw_latents(self.pipe, prompts, seeds, self.call, self.form.sample_shape)}

    def _open(self, file: Path) -> dict[str, torch.Tensor]:
        height, width = picture_size(self.pipe, self.call)
        generator = torch.Generator().manual_seed(self.seed)
        latents = encode_picture(self.pipe, open_picture(file).image, height, width, generator)
        return {"latents": pack_latents(self.pipe, latents, torch.empty(1, *self.form.sample_shape))}

    def _refuse_lengths(self, files: Sequence[Path]) -> None:
        shapes = {_row_shapes(file) for file in files}
        if len(shapes) > 1:
            raise RefusedError(
                f"{type(self.pipe).__name__} gives its transformer texts of unequal lengths, which make no batch; "
                "let it pad them (--call max_sequence_length=N, where it takes that)"
            )


def _row_shapes(file: Path) -> tuple[tuple[str, tuple[int, ...]], ...]:
    with safe_open(file, framework="pt") as opened:
        names = sorted(opened.keys())
        return tuple((name, tuple(opened.get_slice(name).get_shape()[1:])) for name in names)


def seed_of_latents(seed: int, prompt: str, number: int) -> int:
    """The seed of a prompt's noise: its own, whatever other prompts there are."""
    digest = hashlib.sha256(f"{seed}\0{number}\0{prompt}".encode()).digest()
    return int.from_bytes(digest[:4])
