"""Picture k has the noise of seed + k, however the prompts are batched."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from family_pipelines import family_pipeline
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import surgery
from surgery.errors import InputError
from surgery.pipelines.conditions import as_argument
from surgery.pipelines.draw import check_call, draw_latents, draw_pictures
from surgery.spec.load import read_spec

PROMPTS = ["a", "b", "c", "d", "e"]


class NoisePipeline:
    """Draws its noise: a stand-in for a pipeline that takes a list of generators."""

    def __init__(self):
        self.batches = []

    def __call__(self, prompt, generator=None, output_type="pil", size=4, fail=None):
        if fail is not None:
            raise fail
        self.batches.append((list(prompt), output_type, size))
        noise = [torch.randint(256, (size, size), generator=own, dtype=torch.uint8) for own in generator]
        return SimpleNamespace(images=[Image.fromarray(values.numpy()) for values in noise])


def draw(prompts=PROMPTS, *, seed=0, batch_size=8, call=None, **options):
    return draw_pictures(NoisePipeline(), prompts, seed=seed, batch_size=batch_size, call=call or {}, **options)


def pixels(drawings):
    return [np.asarray(drawing.image).tobytes() for drawing in drawings]


@given(st.integers(1, 7), st.integers(0, 100))
def test_noise_does_not_depend_on_the_batch_size(batch_size, seed):
    found = draw(seed=seed, batch_size=batch_size)
    assert pixels(found) == pixels(draw(seed=seed, batch_size=1))
    assert [drawing.seed for drawing in found] == [seed + k for k in range(5)]
    assert [drawing.prompt for drawing in found] == PROMPTS


@given(st.integers(0, 100), st.integers(0, 4))
def test_prompt_k_has_the_noise_of_seed_plus_k(seed, k):
    assert pixels(draw(seed=seed))[k] == pixels(draw(["x"], seed=seed + k))[0]


@given(st.integers(1, 7), st.integers(0, 100))
def test_shared_noise_is_that_of_one_generator_in_turn_whatever_the_batch_size(batch_size, seed):
    found = draw(seed=seed, batch_size=batch_size, noise="shared")
    generator = torch.Generator().manual_seed(seed)
    alone = [NoisePipeline()([prompt], generator=[generator]).images[0] for prompt in PROMPTS]
    assert pixels(found) == [np.asarray(image).tobytes() for image in alone]
    assert pixels(found)[0] == pixels(draw(seed=seed))[0] and pixels(found)[1] != pixels(draw(seed=seed))[1]
    assert [drawing.seed for drawing in found] == [seed] * len(PROMPTS)


def test_every_prompt_has_noise_of_its_own():
    assert len(set(pixels(draw(["same"] * 5)))) == 5


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    draw()
    assert torch.equal(torch.get_rng_state(), before)


class FilmPipeline(NoisePipeline):
    """Returns videos, as video pipelines do: lists of frames."""

    def __call__(self, prompt, generator=None, output_type="pil", num_frames=5):
        drawn = super().__call__(prompt, generator, output_type).images
        return SimpleNamespace(frames=[[image] * num_frames for image in drawn])


def test_a_video_of_one_frame_is_a_picture_and_longer_ones_are_not_waited_for():
    pipe = FilmPipeline()
    found = draw_pictures(pipe, PROMPTS, seed=0, batch_size=8, call={"num_frames": 1})
    assert pixels(found) == pixels(draw())
    with pytest.raises(InputError, match=r"FilmPipeline draws videos of 5 frames, .* give --call num_frames=1"):
        draw_pictures(pipe, PROMPTS, seed=0, batch_size=8, call={})
    assert len(pipe.batches) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [({"frames": [[1, 2]]}, "draws videos of 2 frames"), ({"audios": []}, "returns neither pictures nor frames")],
)
def test_what_is_no_picture_is_refused(answer, message):
    class OtherPipeline:
        def __call__(self, prompt, generator=None, output_type="pil"):
            return SimpleNamespace(**answer)

    with pytest.raises(InputError, match=f"OtherPipeline {message}"):
        draw_pictures(OtherPipeline(), PROMPTS, seed=0, batch_size=8, call={})


def test_batches_are_in_order_and_told():
    pipe, told = NoisePipeline(), []
    draw_pictures(pipe, PROMPTS, seed=0, batch_size=2, call={"size": 8}, on_batch=told.append)
    assert pipe.batches == [(["a", "b"], "pil", 8), (["c", "d"], "pil", 8), (["e"], "pil", 8)]
    assert told == [2, 2, 1]


def test_no_prompt_draws_nothing():
    assert draw([]) == []


def test_arguments_that_the_pipeline_has_pass():
    check_call(NoisePipeline(), {"size": 3, "fail": None})
    check_call(NoisePipeline(), {})


def test_arguments_that_it_lacks_are_refused_before_it_is_called():
    pipe = NoisePipeline()
    message = "NoisePipeline takes no argument colour; it takes size, fail"
    with pytest.raises(InputError, match=message):
        draw_pictures(pipe, PROMPTS, seed=0, batch_size=2, call={"size": 8, "colour": "red"})
    assert pipe.batches == []


@pytest.mark.parametrize("name", ["self", "prompt", "generator", "output_type", "return_dict"])
def test_arguments_that_are_set_for_every_batch_are_refused(name):
    with pytest.raises(InputError, match=f"the argument {name} of NoisePipeline is set for every batch; leave it out"):
        draw(call={name: 1})


@pytest.mark.parametrize("error", [ValueError("bad size"), TypeError("bad size"), IndexError("bad size")])
def test_what_the_pipeline_refuses_is_told(error):
    with pytest.raises(InputError, match="NoisePipeline refuses the call: bad size"):
        draw(call={"fail": error})


def test_a_failure_that_is_nobody_s_input_is_passed_on():
    with pytest.raises(RuntimeError, match="out of memory"):
        draw(call={"fail": RuntimeError("out of memory")})


class PictureFirst(NoisePipeline):
    """As FLUX.2 and the pipelines that edit pictures: what comes first is a picture."""

    def __call__(self, image=None, prompt=None, **call):
        assert image is None
        return super().__call__(prompt, **call)


def test_prompts_are_given_by_name_as_some_pipelines_take_a_picture_first():
    found = draw_pictures(PictureFirst(), PROMPTS, seed=0, batch_size=8, call={})
    assert pixels(found) == pixels(draw())


def test_a_pipeline_of_neither_prompts_nor_classes_is_told():
    pipe = SimpleNamespace()
    with pytest.raises(InputError, match="SimpleNamespace is called with neither prompts nor classes"):
        as_argument(pipe, PROMPTS)


def test_one_negative_text_is_that_of_every_prompt():
    """Qwen-Image's pipeline encodes one text as that of one prompt, and hands its transformer rows of two numbers."""
    pipe, call = family_pipeline("qwen")
    variant = surgery.apply(pipe, read_spec('surgery: v1\noperations:\n  - skip: "transformer_blocks[1]"\n'))
    prompts = ["red apple", "two blue birds"]
    one = draw_latents(variant, prompts, seed=0, call={**call, "negative_prompt": "blurred"})
    each = draw_latents(variant, prompts, seed=0, call={**call, "negative_prompt": ["blurred", "blurred"]})
    assert torch.equal(one, each)
