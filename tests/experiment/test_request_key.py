"""The key of a request: whatever changes the plans of its specs makes another request of it."""

import pytest

from surgery.experiment.evaluation import EvaluationRequest, key_of_request
from surgery.experiment.judges import JudgeRequest
from surgery.experiment.prompts import PromptSet

SPEC = """surgery: v1
groups: {middle: "transformer_blocks[4:8]"}
vary: {s: [1, 2]}
operations: [{skip: "transformer_blocks[{s}]"}]
"""
NAMING = {  # the file -> a line of a spec that names it
    "order/evaluation.json": "cumulative: {over: s, order: order}",
    "order.safetensors": "cumulative: {over: s, order: order.safetensors#transformer_blocks}",
    "groups.safetensors": "groups: {middle: groups.safetensors#transformer_blocks.middle}",
    "means.safetensors": "profile: means.safetensors",
}


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)
    return path


def key_of(spec, profile=None):
    judges = JudgeRequest(extractors=("none",), clip="none", lpips="none")
    asked = {"specs": (str(spec),), "prompts": PromptSet(("rocket",)), "judges": judges, "profile": profile}
    return key_of_request(EvaluationRequest(**asked, out=spec.parent / "out"))


def name_in(spec, line):
    key = line.partition(":")[0]
    kept = [known for known in SPEC.splitlines() if not known.startswith(f"{key}:")]
    spec.write_text("\n".join([*kept, line]) + "\n")


@pytest.mark.parametrize("name", NAMING)
def test_a_request_is_another_once_a_file_that_its_spec_names_has_changed(spec, name):
    name_in(spec, NAMING[name])
    keys = [key_of(spec)]  # a file that is not there is a fault, which planning finds
    (spec.parent / name).parent.mkdir(exist_ok=True)
    for content in ("one", "other", "one"):
        (spec.parent / name).write_text(content)
        keys.append(key_of(spec))
    assert len(set(keys)) == 3 and keys[1] == keys[3]


def test_only_the_means_that_are_used_are_asked_for(spec):
    """Those of the call take the place of the spec's."""
    name_in(spec, NAMING["means.safetensors"])
    own, given = spec.parent / "means.safetensors", spec.parent / "given.safetensors"
    keys = []
    for path, content in ((own, "one"), (given, "one"), (own, "other"), (given, "other")):
        path.write_text(content)
        keys.append(key_of(spec, given))
    assert keys[0] != keys[1] == keys[2] != keys[3]
