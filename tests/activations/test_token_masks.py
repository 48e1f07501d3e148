"""Which tokens of an output are padding: those of an argument, or of several that a block joins to one sequence."""

import numpy as np
import pytest
import torch

from surgery.activations.recorder import Recorder
from surgery.activations.token_masks import TokenMasks
from surgery.anatomy.from_model import read_anatomy
from surgery.testing import build_tiny_model, tiny_call

PICTURE, CONTEXT = "hidden_states", "encoder_hidden_states"
TEXT = torch.tensor([[True, True, False]])


def begun(num_picture, masks):
    """The masks of a stack whose first block is given 3 tokens of text and some of a picture, and these arguments."""
    found = TokenMasks()
    arguments = {PICTURE: torch.randn(1, num_picture, 4), CONTEXT: torch.randn(1, 3, 4)}
    found.begin(arguments, lambda name, value: masks.get(name))
    return found, arguments


@pytest.mark.parametrize("num_picture", [3, 5])
def test_an_output_has_the_mask_of_the_argument_whose_tokens_it_has(num_picture):
    masks, _ = begun(num_picture, {CONTEXT: TEXT})
    text = masks.known[CONTEXT]
    assert masks.of_output(PICTURE, torch.Size([1, num_picture])) is None
    assert masks.of_output(CONTEXT, torch.Size([1, 3])) is text
    found = masks.of_output(PICTURE, torch.Size([1, 3]))  # as ff_context of SD3, whose h is hidden_states
    assert (found is text) == (num_picture != 3)
    assert masks.of_output(PICTURE, torch.Size([1, 3 + num_picture])) is None  # both in one sequence, in which order?


@pytest.mark.parametrize("num_picture", [3, 5])  # as many tokens as the text: told by what is joined
@pytest.mark.parametrize("order", [(CONTEXT, PICTURE), (PICTURE, CONTEXT)])
def test_arguments_that_a_block_joins_keep_their_masks(num_picture, order):
    masks, arguments = begun(num_picture, {CONTEXT: TEXT})
    with masks.watching(arguments):
        torch.cat([arguments[name] for name in order], dim=1)
    found = masks.of_output(PICTURE, torch.Size([1, 3 + num_picture]))
    parts = {CONTEXT: TEXT[0].tolist(), PICTURE: [True] * num_picture}
    assert found.tolist() == [parts[order[0]] + parts[order[1]]]


def test_what_was_seen_once_holds_for_later_forwards_of_other_sizes():
    masks, arguments = begun(5, {CONTEXT: TEXT})
    with masks.watching(arguments):
        torch.concatenate((arguments[CONTEXT] * 2, arguments[PICTURE] + 1), -2)  # of norms, as CogVideoX does
    torch.cat([arguments[PICTURE], arguments[CONTEXT]], 1)  # nobody looks
    masks.begin({PICTURE: torch.randn(2, 7, 4), CONTEXT: torch.randn(2, 4, 4)}, lambda name, value: None)
    assert masks.of_output(PICTURE, torch.Size([2, 11])) is None  # unknown in this forward
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    masks.begin({PICTURE: torch.randn(2, 7, 4), CONTEXT: torch.randn(2, 4, 4)}, lambda n, v: {CONTEXT: mask}.get(n))
    assert masks.of_output(PICTURE, torch.Size([2, 11])).sum(1).tolist() == [11, 8]


def test_what_is_not_joined_of_arguments_along_tokens_tells_nothing():
    masks, arguments = begun(5, {CONTEXT: TEXT})
    with masks.watching(arguments):
        torch.cat([arguments[CONTEXT], torch.randn(1, 2, 4)], dim=1)  # two tokens of nobody knows what
        torch.cat([arguments[CONTEXT], arguments[CONTEXT]], dim=2)
        torch.cat([arguments[CONTEXT][..., None], arguments[PICTURE][..., None]], 1)
        torch.cat([arguments[CONTEXT].long(), arguments[PICTURE].long()], 1)
        torch.cat([arguments[CONTEXT]], 1)
    assert not masks.joins


def test_two_orders_of_the_same_arguments_are_not_guessed_between():
    masks, arguments = begun(5, {CONTEXT: TEXT})
    with masks.watching(arguments):
        torch.cat([arguments[CONTEXT], arguments[PICTURE]], 1)
        torch.cat([arguments[PICTURE], arguments[CONTEXT]], 1)
    assert masks.of_output(PICTURE, torch.Size([1, 8])) is None


def test_components_of_joint_sequences_are_counted_without_padding():
    """Flux's single blocks join text and picture, text first."""
    torch.manual_seed(0)
    model = build_tiny_model("flux")
    recorder = Recorder(model, read_anatomy(model))
    call = tiny_call(model)
    rows, num_text = call[CONTEXT].shape[:2]
    mask = torch.arange(num_text)[None] < torch.arange(1, rows + 1)[:, None]  # one token more in each row
    recorder.find_mask = lambda argument: mask if argument.name == CONTEXT else None
    path = "single_transformer_blocks.1.proj_mlp"
    seen = []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad(), recorder:
        for _ in range(2):
            model(**call)
            recorder.settle(0.5)
    handle.remove()
    moments = recorder.profile({}).moments(path, "input")
    kept = [row[torch.cat([mask[number], mask.new_ones(len(row) - num_text)])] for number, row in enumerate(seen[0])]
    expected = torch.cat(kept).double().numpy()
    assert num_text > 2 and moments.count == 2 * len(expected)
    np.testing.assert_allclose(moments.mean, expected.mean(0), rtol=1e-10)
    np.testing.assert_allclose(moments.variance, expected.var(0), rtol=1e-8)


def test_a_first_block_that_fails_leaves_nobody_watching():
    model = build_tiny_model("flux")
    recorder = Recorder(model, read_anatomy(model))
    call = tiny_call(model)

    def fail(*_):
        raise RuntimeError("as when memory runs out")

    handle = model.single_transformer_blocks[0].norm.register_forward_pre_hook(fail)
    with torch.no_grad(), recorder:
        with pytest.raises(RuntimeError, match="memory runs out"):
            model(**call)
        assert torch.overrides._get_current_function_mode() is None
        handle.remove()
        model(**call)
        recorder.settle(0.5)
    assert torch.overrides._get_current_function_mode() is None
    assert recorder._stacks["single_transformer_blocks"].masks.joins == {(CONTEXT, PICTURE)}


def test_a_first_block_that_is_interrupted_leaves_nobody_watching():
    model = build_tiny_model("flux")

    def interrupt(*_):
        raise KeyboardInterrupt("by hand")

    model.transformer_blocks[0].norm1.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt, match="by hand"), torch.no_grad(), Recorder(model, read_anatomy(model)):
        model(**tiny_call(model))
    assert torch.overrides._get_current_function_mode() is None


def test_a_join_of_what_a_forward_has_not_is_passed_over():
    masks, arguments = begun(5, {CONTEXT: TEXT})
    with masks.watching(arguments):
        torch.cat([arguments[CONTEXT], arguments[PICTURE]], 1)
    masks.begin({PICTURE: torch.randn(1, 5, 4)}, lambda name, value: torch.ones(1, 5))
    assert masks.of_output(PICTURE, torch.Size([1, 8])) is None
