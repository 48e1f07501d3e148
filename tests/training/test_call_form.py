"""The call of a transformer without its pipeline: the same prediction, at any time of any row."""

import functools

import pytest
import torch
from pipelines import build_pipeline

from surgery.errors import RefusedError
from surgery.experiment.denoising_error import denoising_errors
from surgery.pipelines.noised import predict_noised
from surgery.pipelines.probes import CLASSES, PROBES
from surgery.testing import build_tiny_model
from surgery.training.call_form import conditions_of_call, learn_form, noised_rows, note_call
from surgery.training.held_out import prepare_held_out
from surgery.training.noised_batches import NoisedBatches
from surgery.training.shelf import Rows, Shelf, rows_of
from surgery.training.trajectory_latents import draw_latents

NAMES = ("sd3", "flux", "auraflow", "dit")  # plain, packed, time as a share, classes and variances


@functools.cache
def learnt(name):
    """A tiny pipeline, its call, prompts, and the form of its transformer's call; nobody changes them."""
    pipe, call = build_pipeline(name)
    return pipe, call, list(CLASSES if name == "dit" else PROBES), learn_form(pipe, call)


def prepared(name, folder):
    """What `learnt` gives, and rows of latents and texts on a shelf."""
    pipe, call, prompts, form = learnt(name)
    shelf = Shelf(folder)
    latents = torch.randn(2, *form.sample_shape, generator=torch.Generator().manual_seed(1))
    texts = {str(number): rows for number, rows in conditions_of_call(form, note_call(pipe, prompts, call)).items()}
    files = [shelf.find_or_make({"of": name}, lambda: {"latents": latents}), shelf.find_or_make({}, lambda: texts)]
    return pipe, call, prompts, form, latents, *(rows_of([file], [2]) for file in files)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_rows_at_times_of_their_own_are_predicted_as_the_pipeline_would_one_by_one(name):
    pipe, call, prompts, form = learnt(name)
    generator = torch.Generator().manual_seed(2)
    clean, noise = (torch.randn(2, *form.sample_shape, generator=generator) for _ in range(2))
    shares = torch.tensor([0.125, 0.75], dtype=torch.float64)
    noised, exact = noised_rows(pipe.scheduler, clean, noise, shares)
    args, kwargs = form.arguments(noised, exact, conditions_of_call(form, note_call(pipe, prompts, call)))
    together = form.prediction_of(pipe.transformer(*args, **kwargs))
    for row, share in enumerate(shares.tolist()):
        own = slice(row, row + 1)
        alone = predict_noised(pipe, clean[own], noise[own], share, prompts[own], call)
        assert torch.allclose(together[own], alone, rtol=1e-3, atol=1e-4)  # another batch size rounds otherwise


@pytest.mark.parametrize("name", NAMES)
def test_the_held_out_error_is_the_denoising_error_of_evaluate(name, tmp_path):
    pipe, call, prompts, form, clean, latents, texts = prepared(name, tmp_path)
    other = build_tiny_model(name)
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(1.05)
    held_out = prepare_held_out(
        pipe.transformer, form, pipe.scheduler, latents, texts, seed=3, bins=2, batch_size=2, device=torch.device("cpu")
    )
    found = held_out(other)
    row = type(pipe)(**{**pipe.components, "transformer": other})
    row.set_progress_bar_config(disable=True)
    expected = denoising_errors(
        {"row": row}, pipe, clean, prompts, seeds=[3, 4], bins=2, batch_size=2, call=call
    )["row"].to_baseline  # fmt: skip
    assert found["error"] == pytest.approx(expected.mean(), rel=1e-3) and found["error"] > 0.001
    assert [found["0.25"], found["0.75"]] == pytest.approx(expected.mean(axis=0), rel=1e-3)


def test_something_else_that_changes_with_time_is_noticed(monkeypatch):
    pipe, call = build_pipeline("sd3")
    encode = pipe.encode_prompt

    def encode_prompt(*args, **kwargs):  # the time is in the text, too
        texts = list(encode(*args, **kwargs))
        texts[2] = texts[2] + pipe.scheduler.timesteps[0] / 100
        return tuple(texts)

    monkeypatch.setattr(pipe, "encode_prompt", encode_prompt)
    with pytest.raises(RefusedError, match="something that changes with time beside timestep"):
        learn_form(pipe, call)


@pytest.mark.parametrize("name", NAMES)
def test_latents_are_in_the_shape_that_the_transformer_is_given(name):
    pipe, call, prompts, form = learnt(name)
    drawn = draw_latents(pipe, prompts, [5, 6], call, form.sample_shape)
    assert drawn.shape == (2, *form.sample_shape) and not torch.equal(drawn[0], drawn[1])
    again = draw_latents(pipe, prompts, [5, 7], call, form.sample_shape)
    assert torch.equal(drawn[0], again[0]) and not torch.equal(drawn[1], again[1])


def batches_of(name, folder, **changes):
    pipe, _, _, form, _, latents, texts = prepared(name, folder)
    given = {"no_text": None, "unconditional": 0.0, "size": 4, "seed": 0, **changes}
    return NoisedBatches(form, pipe.scheduler, latents, texts, [0, 1], **given)


def test_a_batch_is_a_function_of_its_number(tmp_path):
    batches = batches_of("sd3", tmp_path)
    cpu = torch.device("cpu")
    one, again, other = batches(7, cpu), batches(7, cpu), batches(8, cpu)
    assert torch.equal(one.noise, again.noise) and torch.equal(one.shares, again.shares)
    assert torch.equal(one.kwargs["hidden_states"], again.kwargs["hidden_states"])
    assert not torch.equal(one.noise, other.noise)
    assert sorted((one.shares * 4).int().tolist()) == [0, 1, 2, 3], "a time in every part of the range"
    assert len({row.sum().item() for row in one.clean}) == 2, "each latent comes once an epoch"


def test_rows_without_a_prompt_have_the_condition_of_the_empty_one(tmp_path):
    texts = batches_of("sd3", tmp_path).texts.read([0, 1])
    dropped = batches_of("sd3", tmp_path, no_text=1, unconditional=1.0)(0, torch.device("cpu"))
    kept = batches_of("sd3", tmp_path, no_text=1)(0, torch.device("cpu"))
    pooled = texts["3"]
    assert torch.equal(dropped.kwargs["pooled_projections"], pooled[1:].expand(4, -1))
    assert not torch.equal(kept.kwargs["pooled_projections"], pooled[1:].expand(4, -1))


def test_what_is_kept_is_found_again_and_what_is_damaged_is_made_anew(tmp_path):
    shelf, made = Shelf(tmp_path / "data"), []

    def make():
        made.append(1)
        return {"x": torch.ones(1)}

    path = shelf.find_or_make({"of": 1}, make)
    assert shelf.find_or_make({"of": 1}, make) == path and len(made) == 1
    path.write_bytes(path.read_bytes()[:9])
    assert shelf.find_or_make({"of": 1}, make) == path and len(made) == 2
    assert shelf.find_or_make({"of": 2}, make) != path


def test_rows_of_several_files_are_one_after_the_other_however_many_are_open(tmp_path, monkeypatch):
    monkeypatch.setattr("surgery.training.shelf.MAX_OPEN", 1)
    shelf = Shelf(tmp_path)
    files = [shelf.find_or_make({"of": n}, lambda n=n: {"x": torch.arange(n) + 10 * n}) for n in (2, 3)]
    rows = rows_of(files, [2, 3])
    assert isinstance(rows, Rows) and len(rows) == 5
    assert rows.read([4, 0, 2])["x"].tolist() == [32, 20, 30] and len(rows.opened) == 1
