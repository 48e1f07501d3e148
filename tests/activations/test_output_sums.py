"""Sums of outputs: the same however many wait for each other and are counted together."""

import numpy as np
import pytest
import torch
from tiny_transformers import build_transformer, transformer_call

from surgery.activations import output_sums
from surgery.activations.branches import weigh_tokens
from surgery.activations.output_sums import OutputSums
from surgery.activations.recorder import Recorder
from surgery.anatomy.from_model import read_anatomy

BRANCHES = ("unconditional", "unconditional", "conditional")
TOKENS = {"image": 5, "text": 3}
TEXT_MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])


def random_forward(seed, dtype=torch.float32):
    """The outputs of a forward in its order, as (component, stream) and values: of two streams and two widths."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for block in range(3):
        for name, stream, channels in (
            ("attn", "image", 4),
            ("attn", "text", 4),
            ("ff", "image", 4),
            ("up", "text", 6),
        ):
            values = torch.randn(3, TOKENS[stream], channels, generator=generator) + 100 * block
            found.append(((f"blocks.{block}.{name}", stream), values.to(dtype)))
    return found


def weigh_image(values):
    return weigh_tokens(BRANCHES, values, None)


def weigh_text(values):
    return weigh_tokens(BRANCHES, values, TEXT_MASK)


WEIGH = {"image": weigh_image, "text": weigh_text}


def count(forwards):
    sums = OutputSums()
    for outputs in forwards:
        for output, values in outputs:
            given = values.clone()
            sums.add(output, given, WEIGH[output[1]])
            given.zero_()  # as a forward may do with what was its layer's output
        sums.count_waiting()
    return sums.moments()


def counted_by_hand(forwards):
    """By component, stream and branch: the number of tokens, their mean and the sum of squared deviations."""
    tokens = {}
    for outputs in forwards:
        for (component, stream), values in outputs:
            for row, branch in enumerate(BRANCHES):
                chosen = values[row] if stream == "image" else values[row][TEXT_MASK[row]]
                tokens.setdefault((component, stream, branch), []).append(chosen.double().numpy())
    joined = {key: np.concatenate(found) for key, found in tokens.items()}
    return {key: (len(v), v.mean(0), ((v - v.mean(0)) ** 2).sum(0)) for key, v in joined.items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, (number, mean, squares) in expected.items():
        assert found[key].count == number
        np.testing.assert_allclose(found[key].mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found[key].squares, squares, rtol=1e-10)


@pytest.mark.parametrize("together", [1, 60, 2**18])
@pytest.mark.parametrize("kinds", [1, 2, 8])
@pytest.mark.parametrize("waiting_bytes", [100, 700, 2**23])  # some outputs are larger than the first
def test_it_does_not_matter_how_many_wait_and_are_counted_together(monkeypatch, waiting_bytes, kinds, together):
    monkeypatch.setattr(output_sums, "WAITING_BYTES", waiting_bytes)
    monkeypatch.setattr(output_sums, "KINDS", kinds)
    monkeypatch.setattr(output_sums, "TOGETHER", together)
    forwards = [random_forward(seed) for seed in range(3)]
    if waiting_bytes < 1000:  # outputs larger than the limit are read before the forward writes into them
        assert any(values.nbytes > waiting_bytes for _, values in forwards[0]) == (waiting_bytes == 100)
    assert_same(count(forwards), counted_by_hand(forwards))


def test_the_order_and_number_of_outputs_may_change_from_forward_to_forward():
    forwards = [random_forward(0)[4:], random_forward(1)[::-1], random_forward(2)[::2], random_forward(3)]
    assert_same(count(forwards), counted_by_hand(forwards))


def test_a_component_that_runs_twice_in_a_forward_counts_twice():
    once, again = random_forward(0), random_forward(1)
    forwards = [[one for pair in zip(once, again, strict=True) for one in pair]]
    assert_same(count(forwards), counted_by_hand(forwards))


def test_outputs_of_several_types_are_told_apart():
    forwards = [random_forward(0), random_forward(1, torch.bfloat16), random_forward(2, torch.float64)]
    assert_same(count(forwards), counted_by_hand(forwards))


def test_a_forward_that_is_broken_off_does_not_count_what_waits():
    sums = OutputSums()
    for output, values in random_forward(0):
        sums.add(output, values, WEIGH[output[1]])
    sums.drop_waiting()
    sums.count_waiting()
    assert sums.moments() == {}


def memory_of(sums):
    return [waiting.memory.nbytes for waiting in sums._waiting.values()]


@pytest.mark.parametrize(("waiting_bytes", "kinds"), [(700, 2), (220, 8), (100, 8)])
def test_waiting_takes_no_more_than_its_limit(monkeypatch, waiting_bytes, kinds):
    monkeypatch.setattr(output_sums, "WAITING_BYTES", waiting_bytes)
    monkeypatch.setattr(output_sums, "KINDS", kinds)
    sums = OutputSums()
    for output, values in random_forward(0):
        sums.add(output, values, WEIGH[output[1]])
        assert len(memory_of(sums)) <= kinds
        assert all(size <= waiting_bytes for size in memory_of(sums))
    assert (not memory_of(sums)) == (waiting_bytes == 100)  # larger outputs do not wait


def test_the_memory_of_outputs_that_wait_is_used_again():
    sums = OutputSums()
    places = []
    for seed in range(3):
        for output, values in random_forward(seed):
            sums.add(output, values, WEIGH[output[1]])
        sums.count_waiting()
        places.append([waiting.memory for waiting in sums._waiting.values()])
    assert [len(found) for found in places] == [3, 3, 3]
    assert all(one is again for later in places[1:] for one, again in zip(places[0], later, strict=True))


def test_a_mean_far_from_zero_does_not_cancel_the_squares():
    """Without a shift the squares would cancel: (1e7)^2 leaves 2 of 16 digits of a variance of 1."""
    forwards = [[(output, values.double() + 1e7) for output, values in random_forward(seed)] for seed in range(3)]
    found, expected = count(forwards), counted_by_hand(forwards)
    for key, (_, _, squares) in expected.items():
        np.testing.assert_allclose(found[key].squares, squares, rtol=1e-6)


def test_release_lets_go_of_all_memory_but_that_of_the_sums():
    sums = OutputSums()
    for output, values in random_forward(0):
        sums.add(output, values, WEIGH[output[1]])
    sums.count_waiting()
    counted = sums.moments()
    sums.add(("blocks.0.attn", "image"), torch.ones(3, 5, 4), weigh_image)
    assert memory_of(sums) and sums._memory is not None
    sums.release()
    assert not memory_of(sums) and sums._memory is None
    sums.count_waiting()
    assert {key: moments.count for key, moments in sums.moments().items()} == {k: m.count for k, m in counted.items()}


def test_values_reach_float64_by_way_of_a_device_that_has_it(monkeypatch):
    """As on MPS: an output is brought to where float64 is before it is turned into it."""
    passed = []

    def note(values):
        passed.append(values.dtype)
        return values

    monkeypatch.setattr(output_sums, "where_exact", note)
    count([random_forward(0)])
    assert passed == [torch.float32] * 3  # of three kinds, each counted together


def test_an_output_without_tokens_counts_nothing():
    sums = OutputSums()
    for _ in range(2):
        sums.add(("blocks.0.attn", "text"), torch.ones(3, 0, 4), weigh_image)
        sums.count_waiting()
    assert {moments.count for moments in sums.moments().values()} == {0}


def test_the_mean_of_a_picture_is_that_of_its_places():
    model = build_transformer("SanaTransformer2DModel").double()
    given = transformer_call("SanaTransformer2DModel")
    call = {name: value.double() if value.is_floating_point() else value for name, value in given.items()}
    kept = []
    recorder = Recorder(model, read_anatomy(model), num_bins=1)
    handle = model.transformer_blocks[1].ff.register_forward_hook(lambda *given: kept.append(given[-1]))
    with torch.no_grad(), recorder:
        model(**call)
        recorder.settle(0.5)
    handle.remove()
    moments = recorder.profile({}).components["transformer_blocks.1.ff", "hidden_states", "conditional"]
    rows, _, height, width = kept[0].shape
    assert moments.count == rows * height * width
    np.testing.assert_allclose(moments.mean, kept[0].mean(dim=(0, 2, 3)), rtol=1e-10, atol=1e-13)
