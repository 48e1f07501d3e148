"""`make mutants` has mistakes to make in every package where a wrong number would be believed."""

from pathlib import Path

import pytest
from mutants import mutate
from mutations import MUTATIONS, Mutation

SURGERY = Path(__file__).parents[1] / "surgery"
ROOMS = {
    *(
        "spec",
        "tracing",
        "pipelines",
        "plan",
        "graph",
        "checkpoint",
        "publish",
        "activations",
        "metrics",
        "spectra",
        "experiment",
        "export",
    ),
    "kept.py",
}


def test_every_mutation_has_exactly_one_place():
    """A list of old lines would kill nothing, and say so in vain."""
    for mutation in MUTATIONS:
        text = (SURGERY / mutation.file).read_text()
        assert mutate(text, mutation) != text, mutation


def test_every_mutated_file_is_still_python():
    for mutation in MUTATIONS:
        compile(mutate((SURGERY / mutation.file).read_text(), mutation), mutation.file, "exec")


def test_every_room_has_mutations_and_every_mutation_tests():
    assert len(MUTATIONS) >= 40
    assert {mutation.room for mutation in MUTATIONS} == ROOMS
    for mutation in MUTATIONS:
        file, _, test = mutation.first.partition("::")
        path = Path(__file__).parent / file
        assert path.exists(), mutation
        assert not test or f"def {test}(" in path.read_text(), mutation


@pytest.mark.parametrize(("text", "times"), [("a = 2", 0), ("a = 1\na = 1", 2)])
def test_a_mutation_without_its_one_place_is_refused(text, times):
    with pytest.raises(ValueError, match=f"spec/x.py: 'a = 1' stands there {times} times, not once"):
        mutate(text, Mutation("spec/x.py", "a = 1", "a = 2", "spec"))
