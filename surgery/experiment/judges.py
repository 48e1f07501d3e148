"""What scores the pictures of a run: the judges that are asked for, or those that are there, and what is missing."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from surgery.bundled import DEMO_NAME
from surgery.errors import InputError
from surgery.experiment.jury import Array, ImageJudge, Judges, TextJudge
from surgery.experiment.prompts import PromptSet
from surgery.experiment.scores import check_reference
from surgery.metrics.bundled_judges import BundledJudges
from surgery.metrics.clip_model import HPS_NAME, HPS_TAG, ClipModel, load_clip
from surgery.metrics.clip_score import clip_scores
from surgery.metrics.extractors import (
    Extractor,
    dinov2_extractor,
    fidelity_extractor,
    inception_extractor,
)
from surgery.metrics.feature_cache import features_of
from surgery.metrics.feature_sets import Features, Statistics, check_same_origin, statistics_of
from surgery.metrics.paired import load_lpips
from surgery.metrics.pictures import PictureSet, pictures_of_files, read_pictures
from surgery.metrics.reference import read_reference, write_features, write_statistics
from surgery.outputs import write_file

Judge = TypeVar("Judge")
AUTO, NONE, BUNDLED, INCEPTION, DINOV2 = "auto", "none", "bundled", "inception", "dinov2:"
CLIP, ALEX = "ViT-B-32-quickgelu", "alex"
PROBE_PX = 299
STATISTICS = (".safetensors", ".npz")


@dataclass(frozen=True)
class JudgeRequest:
    """Which judges: `auto` takes the bundled ones for the bundled pipeline, else those whose weights are there.

    A file of weights beside `auto` asks for the judge that they are of: Inception, ViT-B-32-quickgelu, LPIPS (alex).

    `reference` is a folder of real pictures, or a file of their features or statistics.
    """

    extractors: tuple[str, ...] = (AUTO,)
    extractor_weights: Path | None = None
    clip: str = AUTO
    clip_weights: Path | None = None
    clip_tag: str | None = None
    hps_weights: Path | None = None
    cmmd: bool = False
    lpips: str = AUTO
    lpips_weights: Path | None = None
    reference: Path | None = None
    crop_px: int | None = None
    save_reference: Path | None = None
    replace_reference: bool = False
    bundled: BundledJudges | None = None


Given = Features | Statistics | PictureSet | None  # the reference that is asked for, before anybody has looked at it


def _bundled(request: JudgeRequest) -> BundledJudges:
    if request.bundled is None:
        raise InputError("there are no bundled judges here; name others")
    return request.bundled


def load_judges(
    request: JudgeRequest, prompts: PromptSet, model: str, cache: Path, *, device: str = "cpu"
) -> tuple[Judges, list[str]]:
    """The judges, all on one device, and notes on what is not measured and why.

    Raises:
        InputError: a judge that was asked for by name is missing its weights, or the reference can't be used.
    """
    notes: list[str] = []
    request = _asked_by_weights(request)
    is_demo = model == DEMO_NAME
    given = _read_given(request, notes)  # whoever judges by it, or nobody: one that is wrong is told
    images = _load_images(request, given, prompts, cache, notes, device=device, is_demo=is_demo)
    clip = _find(request.clip, lambda: _load_clip(request, device, is_demo=is_demo), "no score against the text", notes)
    clips = [] if clip is None else [("text", clip)]
    if request.hps_weights is not None:
        clips.append(("HPSv2.1", load_clip(HPS_NAME, request.hps_weights, tag=HPS_TAG, device=device)))
    for _, each in clips:
        if cut := each.cut(prompts.prompts):
            notes.append(f"{each.name} reads only the beginning of {len(cut)} prompts; the first is {cut[0][:60]!r}")
    judge_of_cmmd = _load_cmmd(request, given, clip, prompts, cache, notes) if request.cmmd else None
    lpips = None
    if not (is_demo and request.lpips == AUTO):
        backbone = ALEX if request.lpips == AUTO else request.lpips
        load = functools.partial(load_lpips, request.lpips_weights, backbone=backbone, device=device)
        lpips = _find(request.lpips, load, "no LPIPS", notes)
    if request.save_reference is not None:
        _save_reference(images, request.save_reference, force=request.replace_reference)
    texts = tuple(_text_judge(short, each) for short, each in clips)
    return Judges(tuple(images), texts, judge_of_cmmd, lpips, cache), list(dict.fromkeys(notes))


def _asked_by_weights(request: JudgeRequest) -> JudgeRequest:
    """The request with the judges by name whose files of weights are given.

    Raises:
        InputError: a file is given for a judge that takes none.
    """

    def named(option: str, wanted: tuple[str, ...], weights: Path | None, default: str) -> tuple[str, ...]:
        if weights is None:
            return wanted
        if all(name in (NONE, BUNDLED) or name.startswith(DINOV2) for name in wanted):
            chosen = ", ".join(wanted)
            raise InputError(
                f"--{option}-weights {weights} is of no use to --{option} {chosen}; leave one of the two out"
            )
        return tuple(default if name == AUTO else name for name in wanted)

    extractors = named("extractor", request.extractors, request.extractor_weights, INCEPTION)
    (clip,) = named("clip", (request.clip,), request.clip_weights, CLIP)
    (lpips,) = named("lpips", (request.lpips,), request.lpips_weights, ALEX)
    return replace(request, extractors=extractors, clip=clip, lpips=lpips)


def _load_images(
    request: JudgeRequest,
    given: Given,
    prompts: PromptSet,
    cache: Path,
    notes: list[str],
    *,
    device: str,
    is_demo: bool,
) -> list[ImageJudge]:
    """Each extractor, once however it was named, with what it makes of the real pictures."""
    images: list[ImageJudge] = []
    for name in request.extractors:
        load = functools.partial(_load_extractor, name, request, device, is_demo=is_demo)
        extractor = _find(name, load, "no distances to real pictures", notes)
        if extractor is None or any(extractor.origin == judge.extractor.origin for judge in images):
            continue
        is_bundled = is_demo and name in (AUTO, BUNDLED)
        reference = _load_reference(request, given, prompts, extractor, cache, notes, is_bundled=is_bundled)
        if isinstance(reference, Features):
            check_reference(len(reference))
        images.append(ImageJudge(extractor, reference))
    return images


def _text_judge(short: str, clip: ClipModel) -> TextJudge:
    def score(pictures: PictureSet, texts: tuple[str, ...]) -> Array:
        return clip_scores(clip, pictures, texts).cosines

    return TextJudge(short, clip.extractor().origin, score)


def _load_cmmd(
    request: JudgeRequest, given: Given, clip: ClipModel | None, prompts: PromptSet, cache: Path, notes: list[str]
) -> ImageJudge:
    if clip is None:
        raise InputError("--cmmd compares pictures by the CLIP of --clip, and there is none")
    extractor = clip.extractor()
    reference = _load_reference(request, given, prompts, extractor, cache, notes, is_bundled=False)
    if not isinstance(reference, Features):
        raise InputError("--cmmd needs real pictures: give --reference FOLDER, or captions with their pictures")
    return ImageJudge(extractor, reference)


def _save_reference(images: list[ImageJudge], path: Path, *, force: bool) -> None:
    """Features as .safetensors, or their statistics as .npz, of the first extractor."""
    if not images or images[0].reference is None:
        raise InputError("--save-reference has nothing to save: there is no extractor, or there are no real pictures")
    reference = images[0].reference
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / path.name
        if isinstance(reference, Features) and path.suffix != ".npz":
            write_features(reference, beside)
        else:
            write_statistics(statistics_of(reference) if isinstance(reference, Features) else reference, beside)
        write_file(path, beside.read_bytes(), force=force)


def _find(wanted: str, load: Callable[[], Judge], without: str, notes: list[str]) -> Judge | None:
    """A judge; None, with a note, where it was not asked for by name and is not there."""
    if wanted == NONE:
        return None
    try:
        return load()
    except InputError as error:
        if wanted != AUTO:
            raise
        notes.append(f"{without}: {error}")
        return None


def _load_extractor(name: str, request: JudgeRequest, device: str, *, is_demo: bool) -> Extractor:
    if name == BUNDLED or (name == AUTO and is_demo):
        return _bundled(request).extractor(device)
    if name in (AUTO, INCEPTION):
        return inception_extractor(request.extractor_weights, device=device)
    if name.startswith(DINOV2):
        return dinov2_extractor(Path(name.removeprefix(DINOV2)), device=device)
    made = fidelity_extractor(
        name, resize="as its class does", channels=0, weights=request.extractor_weights, device=device
    )
    found = made.forward(torch.zeros(2, 3, PROBE_PX, PROBE_PX, dtype=torch.uint8, device=device))
    return replace(made, channels=int(found.shape[1]))


def _load_clip(request: JudgeRequest, device: str, *, is_demo: bool) -> ClipModel:
    if request.clip == BUNDLED or (request.clip == AUTO and is_demo):
        return load_clip(f"local-dir:{_bundled(request).clip_folder}", device=device)
    name = CLIP if request.clip == AUTO else request.clip
    return load_clip(name, request.clip_weights, tag=request.clip_tag, device=device)


def _read_given(request: JudgeRequest, notes: list[str]) -> Given:
    """What `reference` names, read."""
    given = request.reference
    if given is None:
        return None
    if given.suffix in STATISTICS and not given.is_dir():
        return read_reference(given)
    pictures = read_pictures(given, role="reference", crop_px=request.crop_px)
    notes += pictures.notes
    return pictures


def _load_reference(
    request: JudgeRequest,
    given: Given,
    prompts: PromptSet,
    extractor: Extractor,
    cache: Path,
    notes: list[str],
    *,
    is_bundled: bool,
) -> Features | Statistics | None:
    """The reference that is given, or the prompts' own pictures, or the bundled features of real emoji."""
    if isinstance(given, PictureSet):
        return features_of(given, extractor, cache=cache)
    if given is not None:
        check_same_origin(given, Features(np.empty((0, extractor.channels), np.float32), extractor.origin))
        return given
    if prompts.pictures:
        files = list(dict.fromkeys(prompts.pictures))  # a picture may have several captions
        pictures = pictures_of_files(files, prompts.folder, role="reference", crop_px=request.crop_px)
        notes += pictures.notes
        return features_of(pictures, extractor, cache=cache)
    if is_bundled:
        return _bundled(request).reference(extractor)
    notes.append("no distances to real pictures: give --reference FOLDER, or captions with their pictures")
    return None
