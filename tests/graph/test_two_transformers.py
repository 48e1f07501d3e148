"""A pipeline with two transformers under surgery is the pipeline whose blocks were taken out by hand, to the bit."""

import pytest
import torch
from built_once import building_once
from two_transformers import CALL, LAYERS, LAYERS_2, draw, wan_pipeline

import surgery
from surgery.errors import InputError, SpecError
from surgery.pipelines.noised import predict_noised
from surgery.spec.load import read_spec


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_and_traced_once():
    """How a forward is traced is seen in test_variant.py and test_oracle.py."""
    with building_once():
        yield


ALL, ALL_2 = tuple(range(LAYERS)), tuple(range(LAYERS_2))


def spec_of(*operations):
    return read_spec("surgery: v1\noperations:\n" + "".join(f"  - {item}\n" for item in operations))


def by_hand(first, second, steps=None):
    """The pipeline with these blocks alone, in all of the sampler's steps or in these."""
    pipe = wan_pipeline()
    at = -1

    def note_step(_module, _args, kwargs):
        nonlocal at
        at = pipe.scheduler.step_index or 0

    for model, kept in ((pipe.transformer, first), (pipe.transformer_2, second)):
        blocks = model.blocks
        lone = torch.nn.ModuleList([blocks[index] for index in kept])

        def swap(module, args, kwargs, blocks=blocks, lone=lone):
            note_step(module, args, kwargs)
            module.blocks = lone if steps is None or at in steps else blocks

        model.register_forward_pre_hook(swap, with_kwargs=True)
    return pipe


@pytest.mark.parametrize(
    ("operation", "first", "second"),
    [
        ("skip: blocks[1]", (0, 2, 3), ALL_2),
        ("skip: transformer/blocks[1]", (0, 2, 3), ALL_2),
        ("skip: transformer_2/blocks[1]", ALL, (0, 2)),
        ('skip: "*/blocks[-1]"', (0, 1, 2), (0, 1)),
        ('skip: ["blocks[0]", "transformer_2/blocks[1:3]"]', (1, 2, 3), (0,)),
        ('reverse: "*/blocks[1:]"', (0, 3, 2, 1), (0, 2, 1)),
        ('{skip: "*/blocks[0]", expect: 2}', (1, 2, 3), (1, 2)),
    ],
)
def test_an_edit_of_either_or_both_is_that_by_hand(operation, first, second):
    pipe = wan_pipeline()
    edited = surgery.apply(pipe, spec_of(operation))
    assert torch.equal(draw(edited), draw(by_hand(first, second)))
    assert not torch.equal(draw(edited), draw(pipe))


@pytest.mark.parametrize(
    ("operation", "first", "second", "steps"),
    [
        ("{skip: 'transformer_2/blocks[1]', when: {steps: '3:5'}}", ALL, (0, 2), range(3, 5)),
        ("{skip: '*/blocks[1]', when: {steps: '1:4'}}", (0, 2, 3), (0, 2), range(1, 4)),
        ("{skip: '*/blocks[1]', when: {timesteps: [0.5, 0.9]}}", (0, 2, 3), (0, 2), range(1, 3)),
    ],
)
def test_windows_go_by_the_steps_of_the_pipeline_not_of_a_transformer(operation, first, second, steps):
    """Two of six steps run the first transformer: step 3 of the sampler is the second step of `transformer_2`."""
    edited = surgery.apply(wan_pipeline(), spec_of(operation))
    expected = draw(by_hand(first, second, steps))
    assert torch.equal(draw(edited), expected)
    assert torch.equal(draw(edited), expected), "a second run counts from its own start"


@pytest.mark.parametrize("branch", ["conditional", "unconditional"])
def test_a_window_on_a_branch_of_both_is_not_that_of_the_other(branch):
    whole, one = (
        draw(surgery.apply(wan_pipeline(), spec_of(f"{{skip: '*/blocks[1]'{when}}}")))
        for when in ("", f", when: {{branch: {branch}}}")
    )
    assert not torch.equal(whole, one)
    split = spec_of(
        *(f"{{skip: '*/blocks[1]', when: {{branch: {name}}}}}" for name in ("conditional", "unconditional"))
    )
    assert torch.equal(draw(surgery.apply(wan_pipeline(), split)), whole)


@pytest.mark.parametrize(("share", "part"), [(0.9, "transformer"), (0.7, "transformer"), (0.3, "transformer_2")])
def test_noised_latents_are_predicted_by_the_transformer_for_their_noise(share, part):
    pipe, latents = wan_pipeline(), torch.ones(1, 4, 1, 2, 2)
    call = {name: CALL[name] for name in ("height", "width", "num_frames", "max_sequence_length")}
    given = []
    getattr(pipe, part).register_forward_hook(lambda *called: given.append(called), with_kwargs=True)
    found = predict_noised(pipe, latents, latents * 2, share, ["a red apple"], call)
    ((_, _, kwargs, output),) = given
    assert torch.allclose(kwargs["hidden_states"], latents * (1 + share)) and torch.equal(found, output[0])


def test_a_plan_of_one_transformer_is_the_same_beside_a_second():
    spec, pipe = spec_of("skip: blocks[1]"), wan_pipeline()
    assert surgery.check(spec, pipe).to_json() == surgery.check(spec, pipe.transformer).to_json()
    assert isinstance(surgery.check(spec_of('skip: "*/blocks[1]"'), pipe.transformer), surgery.Plan)


def test_the_faults_of_both_are_said_at_once():
    spec = spec_of("skip: blocks[9]", "skip: transformer_2/blocks[3]", '{skip: "*/blocks[0]", expect: 3}')
    with pytest.raises(SpecError, match=r"(?s):3:.*layers 0 to 3.*:4:.*layers 0 to 2.*:5:.*matches 2 layers in both"):
        surgery.check(spec, wan_pipeline())


def test_a_second_transformer_that_is_not_there_is_a_fault():
    pipe, spec = wan_pipeline(), spec_of("skip: transformer_2/blocks[1]")
    planned = surgery.check(spec, pipe)
    pipe.register_modules(transformer_2=None)
    for target in (pipe, pipe.transformer):
        with pytest.raises(SpecError, match="there is no transformer_2: the model has one transformer"):
            surgery.check(spec, target)
        with pytest.raises(SpecError, match="there is no transformer_2"):
            surgery.apply(target, spec)
        with pytest.raises(InputError, match="a pipeline with two transformers"):
            surgery.apply(target, planned)
