"""Windows in pipelines of families that lay out guidance and time in ways of their own, against the edit by hand.

Joined batches and separate calls, timesteps that grow towards the picture, lists of latents, two transformers.
"""

import functools

import pytest
import torch
from built_once import building_once
from diffusers import CogVideoXDPMScheduler, QwenImagePipeline
from family_pipelines import FAMILIES, draw_family, family_pipeline
from windows_by_hand import Edit, draw_by_hand, random_edits, spec_of

import surgery
from surgery.errors import InputError
from surgery.spec.load import read_spec


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_and_traced_once():
    """A forward is the same in all windows; how it is traced is seen in test_variant.py and test_oracle.py."""
    with building_once():
        yield


SPLIT = 1e-6  # relative: matrix products over half of a batch add up in another order
ALL_KINDS = [
    Edit("repeat", (1,), (0.0, 0.8), None, "conditional"),
    Edit("skip", (2,), None, (1, 3), "unconditional"),
    Edit("skip", (0,), (0.5, 0.9), (0, 2), None),
]
ON_BRANCH = Edit("repeat", (1,), (0.0, 0.8), (1, 3), "conditional")


def assert_as_by_hand(name, pipe, call, edits, *, differs=True, **options):
    """The pictures of a variant are those of the blocks swapped by hand, and are not the pipeline's own."""

    def draw(each):
        return draw_family(each, call, **options)

    expected = draw_by_hand(name, pipe, edits, draw)
    found = draw(surgery.apply(pipe, read_spec(spec_of(name, edits))))
    assert not differs or not torch.equal(expected, draw(pipe))
    assert (found - expected).abs().max() <= SPLIT * expected.abs().max()


SOME = ("sana", "qwen", "wan-pair", "wan-tokens")


def slow_but(*names, of=tuple(FAMILIES)):
    """The names, of which all others are for `make test-slow`."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in of]


@pytest.mark.parametrize("name", slow_but(*SOME))
def test_windows_of_time_steps_and_branch_are_the_edit_by_hand(name):
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, call, ALL_KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FAMILIES)
def test_random_windows_are_the_edit_by_hand(name, seed):
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, call, random_edits(name, seed), differs=False)


@pytest.mark.parametrize("name", slow_but("z-image", of=("z-image", "hunyuan-image", "sana")))
def test_negative_texts_are_given_as_a_pipeline_takes_them(name):
    """Some take one for all prompts, some want one for each: they are asked with two prompts, whatever is drawn."""
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, {**call, "negative_prompt": ["blurred", "bad"]}, [ON_BRANCH])


@pytest.mark.parametrize(("name", "what"), [("ltx", "videos"), ("sana", "images")])
def test_several_pictures_of_a_prompt_are_of_its_branch(name, what):
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, {**call, f"num_{what}_per_prompt": 2}, [ON_BRANCH], count=1, each=2)


def test_a_sampler_whose_step_is_given_more_than_others(tmp_path, monkeypatch):
    """CogVideoX's own takes the last prediction before the timestep, and returns it."""
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path))  # nothing is known of the family yet
    pipe, call = family_pipeline("cogvideox")
    pipe = type(pipe)(**{**pipe.components, "scheduler": CogVideoXDPMScheduler()})
    pipe.set_progress_bar_config(disable=True)
    assert_as_by_hand("cogvideox", pipe, call, ALL_KINDS)


EMBEDDED = {
    "sana": ("prompt_embeds", (16, 8), "prompt_attention_mask"),
    "qwen": ("prompt_embeds", (9, 16), "prompt_embeds_mask"),
    "z-image": ("prompt_embeds", (9, 16), None),
    "wan": ("prompt_embeds", (20, 12), None),
}


@pytest.mark.parametrize("name", slow_but("sana", "wan", of=EMBEDDED))
def test_a_call_with_embeddings_is_asked_with_embeddings(name, tmp_path, monkeypatch):
    """Those of a single prompt, and the same as negative ones; nothing is there that could encode a text."""
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path))
    argument, size, mask = EMBEDDED[name]
    base, call = family_pipeline(name)
    pipe = type(base)(**{**base.components, "text_encoder": None, "tokenizer": None})
    pipe.set_progress_bar_config(disable=True)
    embeddings = torch.randn(1, *size, generator=torch.Generator().manual_seed(2))
    given = [embeddings[0]] if name == "z-image" else embeddings
    own = {mask: torch.ones(1, size[0]).long()} if mask is not None else {}
    own = {name: value for text, value in ((argument, given), *own.items()) for name in (text, f"negative_{text}")}
    kept = {key: value for key, value in call.items() if not key.startswith("negative_")}
    call = {**kept, **own, "prompt": None, "negative_prompt": None}
    assert_as_by_hand(name, pipe, call, [ON_BRANCH], count=1)


def test_embeddings_that_a_pipeline_refuses_are_refused_by_its_own_words():
    base, call = family_pipeline("sana")
    pipe = type(base)(**{**base.components, "text_encoder": None})
    variant = surgery.apply(pipe, read_spec(spec_of("sana", [ON_BRANCH])))
    embeddings = {name: torch.zeros(1, 16, 8) for name in ("prompt_embeds", "negative_prompt_embeds")}
    with pytest.raises(InputError, match="refuses the call: Must provide `prompt_attention_mask`"):
        variant(**call, **embeddings, prompt=None, negative_prompt=None)


class OneAtATime(QwenImagePipeline):
    """A pipeline that takes a single prompt."""

    @functools.wraps(QwenImagePipeline.__call__)
    def __call__(self, prompt=None, **call):
        if isinstance(prompt, list) and len(prompt) > 1:
            raise ValueError("one at a time")
        return super().__call__(prompt=prompt, **call)


def test_a_pipeline_that_takes_one_prompt_is_asked_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path))
    base, call = family_pipeline("qwen")
    pipe = OneAtATime(**base.components)
    pipe.set_progress_bar_config(disable=True)
    assert_as_by_hand("qwen", pipe, {**call, "negative_prompt": "blurred"}, [ON_BRANCH], count=1)
