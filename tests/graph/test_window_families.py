"""Windows in pipelines of families that lay out guidance and time in ways of their own, against the edit by hand.

Joined batches and separate calls, timesteps that grow towards the picture, lists of latents, two transformers.
"""

import pytest
import torch
from built_once import building_once
from diffusers import CogVideoXDPMScheduler
from family_pipelines import FAMILIES, draw_family, family_pipeline
from windows_by_hand import Edit, draw_by_hand, random_edits, spec_of

import surgery
from surgery.spec.load import read_spec


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_and_traced_once():
    """A forward is the same in all windows; how it is traced is seen in test_variant.py and test_oracle.py."""
    with building_once():
        yield


SPLIT = 1e-6  # relative: matrix products over half of a batch add up in another order
IN_TIME = Edit("skip", (1,), (0.0, 0.8), None, None)
ON_BRANCH = Edit("repeat", (1,), None, (1, 3), "conditional")


def assert_as_by_hand(name, pipe, call, edits, **options):
    """The pictures of a variant are those of the blocks swapped by hand, and are not the pipeline's own."""

    def draw(each):
        return draw_family(each, call, **options)

    expected = draw_by_hand(name, pipe, edits, draw)
    found = draw(surgery.apply(pipe, read_spec(spec_of(name, edits))))
    assert (found - expected).abs().max() <= SPLIT * expected.abs().max()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_windows_of_time_steps_and_branch_are_the_edit_by_hand(name):
    pipe, call = family_pipeline(name)
    late = Edit("skip", (2,), (0.4, 1.0), None, "unconditional")
    found = [assert_as_by_hand(name, pipe, call, edits) for edits in ([IN_TIME], [ON_BRANCH, late])]
    assert not torch.equal(found[0], found[1]), "neither edit is in vain"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FAMILIES)
def test_random_windows_are_the_edit_by_hand(name, seed):
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, call, random_edits(name, seed))


@pytest.mark.parametrize("name", ["z-image", "hunyuan-image", "sana"])
def test_negative_texts_are_given_as_a_pipeline_takes_them(name):
    """Some take one for all prompts, some want one for each: they are asked with two prompts, whatever is drawn."""
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, {**call, "negative_prompt": ["blurred", "bad"]}, [ON_BRANCH])
    assert_as_by_hand(name, pipe, {**call, "negative_prompt": ["blurred"]}, [ON_BRANCH], count=1)


@pytest.mark.parametrize(("name", "what"), [("ltx", "videos"), ("sana", "images")])
def test_several_pictures_of_a_prompt_are_of_its_branch(name, what):
    pipe, call = family_pipeline(name)
    assert_as_by_hand(name, pipe, {**call, f"num_{what}_per_prompt": 2}, [ON_BRANCH], count=1, each=2)


@pytest.mark.parametrize("edit", [IN_TIME, ON_BRANCH])
def test_a_sampler_whose_step_is_given_more_than_others(edit, tmp_path, monkeypatch):
    """CogVideoX's own takes the last prediction before the timestep, and returns it."""
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path))  # nothing is known of the family yet
    pipe, call = family_pipeline("cogvideox")
    pipe = type(pipe)(**{**pipe.components, "scheduler": CogVideoXDPMScheduler()})
    pipe.set_progress_bar_config(disable=True)
    assert_as_by_hand("cogvideox", pipe, call, [edit])
