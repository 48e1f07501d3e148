"""A bounded number of what `python tests/fuzz_checkpoint.py` tries, and that it notices a wrong file."""

import random
from dataclasses import replace

import diffusers
import fuzz_checkpoint as fuzz
import pytest

from surgery.checkpoint.byte_plan import BytePlan, Shard

NUM_WEIGHTS, NUM_CONFIGS = 40, 3


pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, of tensors without elements and the like


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Each surgery, fitted to its tiny model."""
    shown = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity(diffusers.utils.logging.CRITICAL)
    yield fuzz.fit_surgeries(tmp_path_factory.mktemp("models"))
    diffusers.utils.logging.set_verbosity(shown)


def unmutated(fitted):
    """The tiny models as they are, in one file and in several."""
    return [fuzz.Case(one, folder, None, size) for one in fitted for folder in one.folders for size in fuzz.SHARD_SIZES]


def test_models_as_they_are_become_what_the_oracle_says(fitted, tmp_path):
    assert {fuzz.outcome_of(case, tmp_path).kind for case in unmutated(fitted)} == {"written"}


def test_mutated_weights_are_refused_or_written_as_they_should_be(fitted, tmp_path):
    outcomes = {
        fuzz.outcome_of(fuzz.mutate_weights(fitted, random.Random(f"test/{number}")), tmp_path).kind
        for number in range(NUM_WEIGHTS)
    }
    assert outcomes == {"written", "refused", "stricter"}


def test_mutated_configs_are_refused_or_compiled_as_they_should_be(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("surgery.calls.example_inputs.find_call", lambda *_: None)  # what is found `make fuzz` tries
    for number in range(NUM_CONFIGS):
        fuzz.outcome_of(fuzz.mutate_config(fitted, random.Random(f"test/{number}")), tmp_path)


@pytest.mark.parametrize("model", [pytest.param(n, marks=[pytest.mark.slow] * (n == "flux")) for n in fuzz.SURGERIES])
def test_tensors_named_almost_like_those_of_blocks_stay_as_they_are(model, fitted, tmp_path):
    """`00` is no number of a block as the stock class writes it: renamed, it would be in the way of a real one."""
    case = unmutated([fitted[list(fuzz.SURGERIES).index(model)]])[0]
    for number in ("00", "\u0660", "9" * 5000, "99"):
        folder = dict(case.weights)
        content = folder[fuzz.files.SINGLE]
        end = fuzz.files.PREFIX_BYTES + fuzz.files.header_length(content)
        header = fuzz.files.parse(content[fuzz.files.PREFIX_BYTES : end])
        offsets = [len(content) - end, len(content) - end + 4]
        entry = fuzz.files.Pairs([("dtype", "F32"), ("shape", [1]), ("data_offsets", offsets)])
        header.append((f"transformer_blocks.{number}.attn.to_q.bias", entry))
        folder[fuzz.files.SINGLE] = fuzz.files.with_header(
            fuzz.files.dump(header).encode(), content[end:] + b"\0\0\x80?"
        )
        assert fuzz.outcome_of(replace(case, weights=folder), tmp_path).kind == "written"


def swap_tensors(plan: BytePlan) -> BytePlan:
    """A byte plan in which two tensors of one size have each other's bytes."""
    shard = max(plan.shards, key=lambda shard: len(shard.tensors))
    one = next(tensor for tensor in shard.tensors if tensor.name.endswith("attn1.to_q.weight"))
    other = next(tensor for tensor in shard.tensors if tensor.name.endswith("attn1.to_k.weight"))
    pieces = {one.name: other.pieces, other.name: one.pieces}
    tensors = [replace(tensor, pieces=pieces.get(tensor.name, tensor.pieces)) for tensor in shard.tensors]
    return replace(plan, shards=tuple(Shard(s.name, tuple(tensors)) if s is shard else s for s in plan.shards))


def test_the_fuzzer_fails_where_two_tensors_are_swapped(fitted, tmp_path, monkeypatch):
    plan_bytes = fuzz.plan_bytes
    monkeypatch.setattr(fuzz, "plan_bytes", lambda *args, **sizes: swap_tensors(plan_bytes(*args, **sizes)))
    case = next(case for case in unmutated(fitted) if case.shard_size == "1GB")
    with pytest.raises(AssertionError, match=r"the tensors differ: .*to_k"):
        fuzz.outcome_of(case, tmp_path)


def test_the_fuzzer_fails_where_zeros_are_not_written(fitted, tmp_path, monkeypatch):
    lay_out = fuzz.lay_out

    def without_zeros(*args):
        laid_out = lay_out(*args)
        kept = [
            replace(tensor, segments=tuple(replace(segment, change="keep") for segment in tensor.segments))
            for tensor in laid_out.tensors
        ]
        return replace(laid_out, tensors=tuple(kept))

    monkeypatch.setattr(fuzz, "lay_out", without_zeros)
    with pytest.raises(AssertionError, match=r"the tensors differ: .*ff\.net\.2"):
        fuzz.outcome_of(unmutated(fitted)[0], tmp_path)
