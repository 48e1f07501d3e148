"""Programs that are wrong on purpose: whatever is broken in an evaluation, a control or a check of its own shows it."""

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from surgery.anatomy.sources import find_source
from surgery.bundled import DEMO_CALL
from surgery.demo.bundled_judges import bundled_clip, bundled_extractor, bundled_judges, bundled_reference
from surgery.demo.extractor import EmojiExtractor
from surgery.demo.training.augment import add_noise, blur
from surgery.demo.training.judge_quality import to_bytes
from surgery.errors import InputError, RefusedError
from surgery.experiment import evaluation, measured_errors, picture_store
from surgery.experiment import rows as experiment_rows
from surgery.experiment import run as experiment_run
from surgery.experiment.bench import Bench
from surgery.experiment.evaluation import EvaluationRequest, draw_rows, list_rows
from surgery.experiment.judges import JudgeRequest, load_judges
from surgery.experiment.jury import ImageJudge, Judges
from surgery.experiment.picture_store import PictureStore
from surgery.experiment.prompts import PromptSet
from surgery.experiment.run import Run, hash_pipeline_files
from surgery.experiment.scores import score_row
from surgery.experiment.sights import Observed
from surgery.files import key_of_recipe
from surgery.graph.apply import Variants
from surgery.metrics.clip_model import load_clip
from surgery.metrics.feature_cache import features_of
from surgery.metrics.kernel_distance import cmmd
from surgery.metrics.pictures import pictures_of_tensor, read_pictures
from surgery.pipelines import shared_text
from surgery.pipelines.draw import draw_pictures
from surgery.pipelines.pretrained import load_pretrained
from surgery.spec.load import load_spec

ROOT = Path(__file__).parents[2]
SKIP, REVERSE = (ROOT / "specs" / "demo" / f"{name}.yaml" for name in ("skip", "reverse"))
SHEET = ROOT / "tests" / "data" / "emoji.png"  # 36 of the real emoji, row by row
PROMPTS = ("red apple", "rocket")
SIZE = (64, 64)
CALL = {**DEMO_CALL, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipe():
    found = load_pretrained(find_source("demo"), dtype="float32", device="cpu")
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def stock(pipe):
    """What the stock pipeline draws when nothing of ours is in between: prompt k by the generator of seed k."""
    noise = [torch.Generator().manual_seed(number) for number in range(len(PROMPTS))]
    return pixels_of(pipe(list(PROMPTS), generator=noise, **CALL).images)


def pixels_of(images):
    return torch.stack([torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1) for image in images])


def make_request(out=Path("nowhere"), **changes):
    options = {"specs": (), "prompts": PromptSet(PROMPTS), "out": out, "judges": JudgeRequest(), "batch_size": 2}
    return EvaluationRequest(**{**options, "call": CALL, **changes})


@pytest.fixture(scope="module")
def rows(pipe):
    return list_rows(pipe, [load_spec(SKIP), load_spec(REVERSE)], make_request(), SIZE)


@pytest.fixture
def draw(pipe, rows, tmp_path):
    """A function: names of rows -> their pictures, drawn as `surgery evaluate` draws them."""

    def drawn(*names, rows=rows, **changes):
        wanted = [row for row in rows if row.name in names]
        request = make_request(tmp_path, **changes)
        bench = Bench(Run(find_source("demo"), pipe, request, CALL), tuple(wanted), request.prompts.prompts)
        return draw_rows(wanted, bench, request, {})

    return drawn


def ssim(found, name):
    scores = score_row(Observed(found[name], found["baseline"], PROMPTS, Judges((), (), None, None, Path("nowhere"))))
    return next(score.values for score in scores if score.metric.name == "SSIM")


@pytest.fixture
def sabotage_drawing(pipe, monkeypatch):
    """Draws by another function: all rows, or those that are not the stock pipeline's."""

    def replace(other, *, also_stock=False):
        def dispatch(own, prompts, **options):
            return (other if also_stock or own is not pipe else draw_pictures)(own, prompts, **options)

        monkeypatch.setattr(experiment_rows, "draw_pictures", dispatch)

    return replace


# Swapped seeds, edits that leak, texts and sizes: the no-op control, and the stock pipeline.


def test_honest_rows_are_exact(draw, stock):
    found = draw("baseline", "skip", "no-op", "reseeded")
    assert (ssim(found, "no-op") == 1).all()
    assert (ssim(found, "skip") < 1).all() and (ssim(found, "reseeded") < 1).all()
    assert torch.equal(found["baseline"].all_pixels(), stock)


def seeds_swapped(pipe, prompts, *, seed, **options):
    seeds = range(seed + len(prompts) - 1, seed - 1, -1)
    return [draw_pictures(pipe, [p], seed=own, **options)[0] for p, own in zip(prompts, seeds, strict=True)]


def test_seeds_that_variants_swap_show_in_the_no_op_control(draw, sabotage_drawing):
    sabotage_drawing(seeds_swapped)
    assert (ssim(draw("baseline", "no-op"), "no-op") < 1).all()


def test_seeds_that_all_rows_swap_are_not_those_of_the_stock_pipeline(draw, stock, sabotage_drawing):
    sabotage_drawing(seeds_swapped, also_stock=True)
    drawn = draw("baseline")["baseline"].all_pixels()
    assert (drawn != stock).flatten(1).any(1).all()


@pytest.fixture
def leaking_apply(pipe, monkeypatch):
    """Leaves the original changed behind a variant."""
    make, weight = Variants.make, pipe.transformer.transformer_blocks[5].ff.net[-1].weight
    before = weight.detach().clone()

    def leak(variants, spec, **options):
        edited = make(variants, spec, **options)
        with torch.no_grad():
            weight.zero_()
        return edited

    monkeypatch.setattr(Variants, "make", leak)
    yield
    with torch.no_grad():
        weight.copy_(before)


@pytest.mark.parametrize("key", [repr, lambda parts: "the same for all"], ids=["honest", "without the prompt"])
def test_a_key_of_texts_that_leaves_out_the_prompt_draws_other_pictures(draw, tmp_path, monkeypatch, key):
    alone = draw("baseline", batch_size=1)["baseline"].all_pixels()
    shutil.rmtree(tmp_path / evaluation.STORE)
    monkeypatch.setattr(shared_text, "repr", key, raising=False)
    shared = draw("baseline", batch_size=1)["baseline"].all_pixels()
    assert [torch.equal(*pair) for pair in zip(alone, shared, strict=True)] == [True, key is repr]


def resized_and_back(pipe, prompts, **options):
    drawings = draw_pictures(pipe, prompts, **options)
    return [dataclasses.replace(item, image=item.image.resize((48, 48)).resize((64, 64))) for item in drawings]


def test_variants_that_are_resized_and_back_show_in_the_no_op_control(draw, sabotage_drawing):
    sabotage_drawing(resized_and_back)
    assert (ssim(draw("baseline", "no-op"), "no-op") < 1).all()


def halved(pipe, prompts, **options):
    drawings = draw_pictures(pipe, prompts, **options)
    return [dataclasses.replace(item, image=item.image.resize((32, 32))) for item in drawings]


def test_variants_of_another_size_do_not_pair(draw, sabotage_drawing):
    sabotage_drawing(halved)
    found = draw("baseline", "no-op")
    with pytest.raises(InputError, match=r"pictures of shape \(2, 3, 32, 32\) can't be paired with \(2, 3, 64, 64\)"):
        ssim(found, "no-op")


# JPEG, a resize of the reference, a picture too many: what is read is what was written.


def store_two(folder):
    place = PictureStore(folder).open({})
    place.keep((0, 1), [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(2)])
    return place.read(2)


def test_a_store_that_writes_jpeg_is_refused(tmp_path, monkeypatch):
    assert len(store_two(tmp_path / "honest")) == 2
    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", lambda image, path, **options: save(image, path, format="JPEG"))
    with pytest.raises(InputError, match=r"00000\.png is JPEG, and scored pictures are PNG; .*00001\.png is JPEG"):
        store_two(tmp_path / "sabotaged")


def test_a_picture_too_many_in_the_store_is_not_counted(draw):
    found = draw("baseline", "no-op")
    shutil.copyfile(found["no-op"].files[0], found["no-op"].files[0].with_name("00002.png"))
    assert (ssim(draw("baseline", "no-op"), "no-op") == 1).all()


@pytest.fixture
def photographs(tmp_path):
    """A folder of four pictures of random pixels, 40 x 57."""
    folder, generator = tmp_path / "photographs", np.random.default_rng(0)
    folder.mkdir()
    for number in range(4):
        pixels = generator.integers(256, size=(40, 57, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def cropped_by_torchvision(folder, side):
    fit = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])
    return pixels_of([fit(Image.open(path)) for path in sorted(folder.iterdir())])


def test_a_reference_that_is_resized_otherwise_is_not_torchvisions(photographs, monkeypatch):
    expected = cropped_by_torchvision(photographs, 32)
    assert torch.equal(read_pictures(photographs, role="reference", crop_px=32).all_pixels(), expected)
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, how: resize(image, size, Image.Resampling.NEAREST))
    assert not torch.equal(read_pictures(photographs, role="reference", crop_px=32).all_pixels(), expected)


@pytest.fixture(scope="module")
def emoji():
    """The real emoji of the sheet, uint8 (36, 3, 64, 64)."""
    with Image.open(SHEET) as sheet:
        array = np.asarray(sheet.convert("RGB"))
    return torch.from_numpy(array.copy()).view(6, 64, 6, 64, 3).permute(0, 2, 4, 1, 3).reshape(36, 3, 64, 64)


@pytest.fixture(scope="module")
def extractor():
    return bundled_extractor()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": "bicubic to 299"}, r"resized by \(bicubic to 299\) can't be compared with ones by \(none: "),
        ({"digest": "0" * 64}, r"emoji-features-v1 \(000000000000\) can't be compared with .*: the weights differ"),
    ],
    ids=["another resize", "random weights"],
)
def test_a_row_is_not_scored_against_a_reference_made_otherwise(emoji, extractor, tmp_path, changes, message):
    pictures, reference = pictures_of_tensor(emoji[:4]), bundled_reference(extractor)
    with pytest.raises(InputError, match=message):
        score_against(pictures, ImageJudge(dataclasses.replace(extractor, **changes), reference), tmp_path)
    assert score_against(pictures, ImageJudge(extractor, reference), tmp_path)


def score_against(pictures, judge, cache):
    return score_row(Observed(pictures, pictures, ("x",) * len(pictures), Judges((judge,), (), None, None, cache)))


# Keys that leave something out.


@pytest.fixture(scope="module")
def recipes(pipe, rows):
    """What the pictures of six rows are kept under, for a request and five that each differ in one thing."""
    seen = []

    def record(store, recipe):
        seen.append(recipe)
        return SimpleNamespace(has=lambda numbers: True, read=lambda num: None)

    changes = [
        {},
        {"prompts": PromptSet(("red apple", "dog face"))},
        {"batch_size": 1},
        {"dtype": "bfloat16"},
        {"device": "cuda:1"},
        {"call": {**CALL, "guidance_scale": 2.0}},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PictureStore, "open", record)
        for change in changes:
            request = make_request(**change)
            run = Run(find_source("demo"), pipe, request, request.call)
            draw_rows(rows, Bench(run, tuple(rows), request.prompts.prompts), request, run.recipe())
    return seen


def num_keys(recipes, *left_out):
    kept = [{name: value for name, value in recipe.items() if name not in left_out} for recipe in recipes]
    return len({key_of_recipe(recipe) for recipe in kept})


def test_no_two_rows_or_requests_share_their_pictures(recipes):
    assert num_keys(recipes) == len(recipes) == 6 * 6


@pytest.mark.parametrize("left_out", ["row", "plan", "seeds_from", "prompts", "batch_size", "dtype", "device", "call"])
def test_a_key_that_leaves_something_out_is_noticed(recipes, left_out):
    assert num_keys(recipes, left_out) < len(recipes)


def test_a_key_that_leaves_out_the_seed_shows_in_the_reseeded_control(draw, monkeypatch):
    def careless(recipe):
        return key_of_recipe({name: value for name, value in recipe.items() if name != "seeds_from"})

    monkeypatch.setattr(picture_store, "key_of_recipe", careless)
    assert (ssim(draw("baseline", "reseeded"), "reseeded") == 1).all()


@pytest.mark.parametrize(
    "file", ["vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json", "model_index.json"]
)
def test_a_changed_part_of_the_pipeline_is_another_key(tmp_path, file):
    source = dataclasses.replace(find_source("demo"), pipeline=str(tmp_path))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    found = [hash_pipeline_files(source) for content in ("one", "two") if (tmp_path / file).write_text(content)]
    assert found[0] != found[1]


def test_a_changed_reference_folder_is_measured_again(emoji, extractor, tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for number, picture in enumerate(emoji[:4]):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    before = reference_of(folder, tmp_path / "cache")
    assert np.array_equal(reference_of(folder, tmp_path / "cache"), before)
    Image.new("RGB", (64, 64)).save(folder / "2.png")
    after = reference_of(folder, tmp_path / "cache")
    assert (before != after).any(1).tolist() == [False, False, True, False]


def reference_of(folder, cache):
    request = JudgeRequest(
        extractors=("bundled",), clip="none", lpips="none", reference=folder, bundled=bundled_judges()
    )
    judges, _ = load_judges(request, PromptSet(PROMPTS), "demo", cache)
    return judges.images[0].reference.values


# Extractors with random weights.


def test_an_extractor_that_forgets_its_weights_is_refused_before_anything_is_drawn(tmp_path):
    request = JudgeRequest(extractors=("own_extractors:Loaded",), clip="none", lpips="none")
    judges, _ = load_judges(request, PromptSet(PROMPTS), "other", tmp_path)
    assert judges.images[0].extractor.channels == 5
    request = dataclasses.replace(request, extractors=("own_extractors:Forgotten",))
    with pytest.raises(InputError, match="the weights of own_extractors:Forgotten are random"):
        load_judges(request, PromptSet(PROMPTS), "other", tmp_path)


# CMMD, the last of the metrics whose laws are not in tests/metrics.


@pytest.mark.parametrize(("damage", "levels"), [(add_noise, (0.05, 0.1, 0.2, 0.4)), (blur, (0.5, 1.0, 2.0, 4.0))])
def test_cmmd_rises_with_noise_and_blur(emoji, damage, levels):
    clip = load_clip(f"local-dir:{bundled_clip()}").extractor()
    known = features_of(pictures_of_tensor(emoji), clip)
    found = [cmmd(features_of(pictures_of_tensor(damaged(emoji, damage, level)), clip), known) for level in levels]
    values = [cmmd(known, known).value, *(item.value for item in found)]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert all(less < more for less, more in pairwise(values)), values


def damaged(pixels, damage, level):
    arguments = [torch.Generator().manual_seed(0)] if damage is add_noise else []
    return to_bytes(damage(pixels.float() / 127.5 - 1, torch.full((len(pixels),), level), *arguments))


# What the program itself says of a leak, and of weights that were not loaded.


def quick_request(out, **changes):
    judges = JudgeRequest(extractors=("none",), clip="none", lpips="none")
    return make_request(out, **{"specs": (str(SKIP),), "judges": judges, "bins": 1, "dtype": "float32", **changes})


@pytest.fixture
def loaded_once(pipe, monkeypatch):
    monkeypatch.setattr(experiment_run, "load_pretrained", lambda *args, **options: pipe)


def test_an_edit_that_leaks_shows_in_the_no_op_control(loaded_once, leaking_apply, tmp_path):
    found = evaluation.run_evaluation(quick_request(tmp_path))
    assert any(note.startswith("no-op differs from the baseline in 2 of 2 pictures") for note in found.notes)


def test_an_honest_no_op_is_not_noted(loaded_once, tmp_path):
    assert evaluation.run_evaluation(quick_request(tmp_path)).notes == ()


def test_a_bundled_extractor_whose_weights_were_not_loaded_is_refused(monkeypatch):
    monkeypatch.setattr(EmojiExtractor, "load_state_dict", lambda *args, **options: None)
    with pytest.raises(InputError, match="the weights of emoji-features-v1 are not the wanted ones"):
        bundled_extractor()


@pytest.mark.parametrize("error", [InputError, RefusedError])
def test_a_pipeline_whose_latents_are_packed_in_unknown_ways_is_scored_without_the_denoising_error(
    loaded_once, tmp_path, monkeypatch, error
):
    def refuse(*_args, **_options):
        raise error("how they are packed is not known")

    monkeypatch.setattr(measured_errors, "denoising_errors", refuse)
    found = evaluation.run_evaluation(quick_request(tmp_path))
    assert found.notes == ("no denoising error: how they are packed is not known",)
    assert {score.metric.kind for score in found.rows[1].scores} >= {"ssim", "psnr"}
