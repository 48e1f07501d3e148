"""Guidance is left out of calls in every way in which pipelines take it."""

import pytest
from family_pipelines import family_pipeline

from surgery.pipelines.guidance import StopSampling, nothing_predicted, noting_forwards, stopping_at_first_step
from surgery.pipelines.unguided import unguided
from surgery.tracing.arguments import parameters_of_module

PROMPTS = ["red apple", "two blue birds"]
FAMILIES = (
    "qwen",  # a scale of its own, and negative prompts
    "hunyuan-image",  # a component that guides
    "wan",  # a scale; two calls
    "sana",  # a scale; one call with both branches
)


def rows_of_forwards(pipe, arguments):
    """How many rows each forward of the first step is given."""
    names, rows = parameters_of_module(pipe.transformer), []

    def note(*args, **kwargs):
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        rows.append(len(next(iter(named.values()))))
        return nothing_predicted(named)

    with noting_forwards(pipe, note), stopping_at_first_step(pipe), pytest.raises(StopSampling):
        pipe(prompt=PROMPTS, output_type="latent", **arguments)
    return rows


@pytest.mark.parametrize("name", FAMILIES)
def test_one_branch_is_run_and_the_pipeline_is_as_it_was(name):
    pipe, call = family_pipeline(name)
    components = dict(pipe.components)
    both = rows_of_forwards(pipe, call)
    with unguided(pipe, call) as arguments:
        assert rows_of_forwards(pipe, arguments) == [len(PROMPTS)]
    assert sum(both) == 2 * len(PROMPTS) == sum(rows_of_forwards(pipe, call))
    assert all(pipe.components[part] is value for part, value in components.items())
