"""The denoising error: exactly zero for the same model, what one computes by hand for others."""

import pickle

import numpy as np
import pipelines
import pytest
import torch

from surgery.anatomy.from_model import read_anatomy
from surgery.errors import InputError
from surgery.experiment.denoising_error import denoising_errors
from surgery.graph.apply import apply
from surgery.graph.shared_forward import DEFAULT_MEMORY, SharedForward
from surgery.pipelines.noised import add_noise
from surgery.pipelines.noised_call import CallNotes, TransformerCall
from surgery.plan.planned import plan_spec
from surgery.spec.load import read_spec

PROMPTS = ("red apple", "rocket", "two dogs")
CHANNELS = {"flux": 1, "sd3": 4, "demo": 4}


@pytest.mark.parametrize("name", ["demo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("flux", "sd3"))])
def test_variants_err_and_the_unchanged_graph_does_not(name):
    pipe, call = pipelines.build_pipeline(name)
    side = 16 if name == "demo" else 8
    clean = torch.randn(3, CHANNELS[name], side, side, generator=torch.Generator().manual_seed(1))
    skipped = apply(pipe, read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[1]"}]'))
    unchanged = apply(pipe, read_spec("surgery: v1\noperations: []"))
    pipes = {"baseline": pipe, "no-op": unchanged, "skip": skipped}
    counted = []
    found = denoising_errors(
        pipes,
        pipe,
        clean,
        PROMPTS,
        seeds=[0, 1, 2],
        bins=3,
        batch_size=2,
        call=call,
        has_truth=True,
        tell=lambda number, name: counted.append(number),
    )
    assert sum(counted) == 3 * 3 * len(pipes)
    assert (found["no-op"].to_baseline == 0).all() and (found["baseline"].to_baseline == 0).all()
    assert found["skip"].to_baseline.shape == (3, 3) and (found["skip"].to_baseline > 1e-4).all()
    assert (found["skip"].to_truth > 0).all()
    again = denoising_errors({"skip": skipped}, pipe, clean, PROMPTS, seeds=[0, 1, 2], bins=3, batch_size=2, call=call)
    assert np.array_equal(again["skip"].to_baseline, found["skip"].to_baseline)
    assert again["skip"].to_truth is None


def test_it_is_the_relative_distance_of_two_predictions():
    """By hand: the transformer of the bundled pipeline called directly."""
    pipe, call = pipelines.build_pipeline("demo")
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    skipped = apply(pipe, read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[3]"}]'))
    found = denoising_errors(
        {"skip": skipped}, pipe, clean, ["rocket"], seeds=[7], bins=2, batch_size=1, call=call, has_truth=True
    )
    with torch.no_grad():
        states, mask, _, _ = pipe.encode_prompt("rocket", do_classifier_free_guidance=False, clean_caption=False)
    for number, share in enumerate((0.25, 0.75)):
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2**16 * (number + 1) + 7))
        time, noised = add_noise(pipe.scheduler, clean, noise, share)
        arguments = {
            "hidden_states": noised,
            "encoder_hidden_states": states,
            "encoder_attention_mask": mask,
            "timestep": time,
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        }
        with torch.no_grad():
            one, other = (p.transformer(**arguments).sample.double() for p in (pipe, skipped))
        expected = float((other - one).norm() / one.norm())
        assert found["skip"].to_baseline[0, number] == pytest.approx(expected, rel=1e-5)
        truth = (noise - clean).double()
        assert found["skip"].to_truth[0, number] == pytest.approx(
            float((other - truth).norm() / truth.norm()), rel=1e-5
        )


WINDOWED = """
surgery: v1
operations:
  - {skip: "transformer_blocks[2]", when: {timesteps: [0.5, 1]}}
  - {replace: {component: "transformer_blocks[1].ff", with: zero}, when: {timesteps: [0, 0.5]}}
"""


def without_view(call, prediction):
    return None


@pytest.mark.parametrize("way", ["view", "by the pipeline", "one by one", "in parts"])
def test_planned_specs_err_as_their_pipelines_do(way, monkeypatch):
    """Whether the prediction is a view of the output, or made by the pipeline, or nothing can be shared at all."""
    pipe, call = pipelines.build_pipeline("demo")
    texts = ['surgery: v1\noperations: [{skip: "transformer_blocks[4]"}]', "surgery: v1\noperations: []", WINDOWED]
    planned = {text: plan_spec(read_spec(text), read_anatomy(pipe.transformer)) for text in texts}
    clean = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    options = {"seeds": [0, 1], "bins": 2, "batch_size": 2, "call": call}
    expected = denoising_errors(
        {text: apply(pipe, found) for text, found in planned.items()}, pipe, clean, PROMPTS[:2], **options
    )
    walked = []
    run_all = SharedForward.run_all
    monkeypatch.setattr(SharedForward, "run_all", lambda *args: (walked.append(1), run_all(*args))[1])
    if way == "by the pipeline":
        monkeypatch.setattr(TransformerCall, "find_view", without_view)
    if way == "one by one":
        monkeypatch.setattr(CallNotes, "before", lambda notes, *_: setattr(notes, "given", [-1]))
    memory = 0 if way == "in parts" else DEFAULT_MEMORY
    found = denoising_errors(planned, pipe, clean, PROMPTS[:2], memory=memory, **options)
    assert all(np.array_equal(found[text].to_baseline, expected[text].to_baseline) for text in texts)
    assert len(walked) == (0 if way == "one by one" else 2)
    assert (found[texts[1]].to_baseline == 0).all() and (found[WINDOWED].to_baseline > 0).all()


def test_a_unit_of_work_holds_its_own_latents_only():
    """Pickled as what another process is sent: a tenth of the latents, not a view of all."""
    pipe, call = pipelines.build_pipeline("demo")
    clean, units = torch.zeros(20, 4, 64, 64), []
    denoising_errors(
        {"baseline": pipe},
        pipe,
        clean,
        ["rocket"] * 20,
        seeds=range(20),
        bins=2,
        batch_size=2,
        call=call,
        run_units=lambda given: iter(units.extend(given) or ()),
    )
    assert len(units) == 2 * 10
    assert max(len(pickle.dumps(unit)) for unit in units) < clean.nbytes / 8


def test_what_does_not_pair_is_said():
    with pytest.raises(InputError, match="there are 2 latents, 3 prompts and 1 seeds; give one each"):
        denoising_errors({}, None, torch.zeros(2, 4, 8, 8), PROMPTS, seeds=[0], bins=1, batch_size=1, call={})
