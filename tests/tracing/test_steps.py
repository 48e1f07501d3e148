"""Stacks and streams are read off the graph; what can't be taken apart is refused."""

import pytest
import torch
from torch import nn

from surgery.errors import RefusedError
from surgery.graph.rewrite import rewrite_graph
from surgery.plan.schedule import Layer, Schedule
from surgery.testing import RETURNED_STREAMS, TINY_MODELS, build_tiny_model, tiny_call
from surgery.tracing.steps import find_stack_names, iter_stacks, read_steps

WIDTH = 4
X = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
TEXT = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))

BOTH = ("hidden_states", "encoder_hidden_states")
STREAMS = {
    "pixart": {"transformer_blocks": {"hidden_states"}},
    "sd3": {"transformer_blocks": set(BOTH)},
    "sd3-dual": {"transformer_blocks": set(BOTH)},
    "flux": {"transformer_blocks": set(BOTH), "single_transformer_blocks": set(BOTH)},
    "auraflow": {"joint_transformer_blocks": set(BOTH), "single_transformer_blocks": {"hidden_states"}},
    "dit": {"transformer_blocks": {"hidden_states"}},
    "chroma": {"transformer_blocks": set(BOTH), "single_transformer_blocks": {"hidden_states"}},
}


class Block(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) / 2)

    def forward(self, x):
        return x + torch.tanh(x @ self.weight)


class JointBlock(Block):
    def forward(self, x, text):
        mixed = torch.tanh(torch.cat([text, x], dim=1) @ self.weight)
        return text + mixed[:, : text.shape[1]], x + mixed[:, text.shape[1] :]


class Toy(nn.Module):
    """A stack of blocks; subclasses say how it runs."""

    def __init__(self, num_blocks=6, block=Block):
        super().__init__()
        self.blocks = nn.ModuleList(block(seed) for seed in range(num_blocks))


class Plain(Toy):
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x * 2


class LongSkip(Toy):
    """What layer 1 leaves is added to what enters layer 4, wherever the two run."""

    def forward(self, x):
        return self.run(x, range(len(self.blocks)))

    def run(self, x, layers):
        kept = x
        for index in layers:
            if index == 4:
                x = x + kept
            x = self.blocks[index](x)
            if index == 1:
                kept = x
        return x


class UShaped(Toy):
    """Each layer of the second half takes what its twin of the first half left."""

    def forward(self, x):
        left = []
        for block in self.blocks[:3]:
            x = block(x)
            left.append(x)
        for block in self.blocks[3:]:
            x = block(x + left.pop())
        return x


class Interleaved(Toy):
    def __init__(self):
        super().__init__(3)
        self.others = nn.ModuleList(Block(seed) for seed in range(3, 6))

    def forward(self, x):
        for block, other in zip(self.blocks, self.others, strict=True):
            x = other(block(x))
        return x

    def run(self, x, layers):
        for index in layers:
            x = self.others[index](self.blocks[index](x))
        return x


class WrittenOut(Interleaved):
    """The same without a loop."""

    def forward(self, x):
        x = self.others[0](self.blocks[0](x))
        x = self.others[1](self.blocks[1](x))
        return self.others[2](self.blocks[2](x))


class Now(Toy):
    """A block of another stack behind every second one."""

    def __init__(self):
        super().__init__()
        self.others = nn.ModuleList(Block(seed) for seed in range(10, 13))

    def forward(self, x):
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index % 2 == 0:
                x = x + self.others[index // 2](x)
        return x * 2

    def run(self, x, layers):
        for index in layers:
            x = self.blocks[index](x)
            if index % 2 == 0:
                x = x + self.others[index // 2](x)
        return x * 2


class Hints(Toy):
    """What each block of another stack leaves is a hint for one of the blocks."""

    def __init__(self):
        super().__init__()
        self.others = nn.ModuleList(Block(seed) for seed in range(10, 16))

    def forward(self, x):
        hints, hint = [], x
        for other in self.others:
            hint = other(hint)
            hints.append(hint)
        for block, hint in zip(self.blocks, hints, strict=True):
            x = block(x) + hint
        return x


class Twice(Toy):
    def forward(self, x):
        for block in [*self.blocks, self.blocks[0]]:
            x = block(x)
        return x


class Backwards(Toy):
    def forward(self, x):
        for block in reversed(self.blocks):
            x = block(x)
        return x


class Joint(Toy):
    def __init__(self, num_blocks=3):
        super().__init__(num_blocks, JointBlock)

    def forward(self, x, text):
        for block in self.blocks:
            text, x = block(x, text)
        return x.sum() + text.sum()


class IgnoresTheBlockBefore(Toy):
    def forward(self, x):
        given = x
        for index, block in enumerate(self.blocks):
            x = block(given if index == 3 else x)
        return x


@pytest.fixture
def steps_of(trace):
    """The steps of the stack `blocks` of a toy."""

    def steps(model, *args):
        traced = trace(model, *args)
        return read_steps(traced.graph, traced.model, "blocks", len(model.blocks))

    return steps


def names_of(steps):
    return [stream.parameter for stream in steps.streams]


def test_every_tiny_model_has_its_streams_written_down():
    assert STREAMS.keys() == TINY_MODELS.keys()


@pytest.mark.parametrize("name", TINY_MODELS)
def test_streams_of_every_class_are_found(trace, name):
    model = build_tiny_model(name)
    traced = trace(model, **tiny_call(model))
    stacks = dict(iter_stacks(traced.graph, traced.model))
    assert list(stacks) == list(STREAMS[name])
    for stack, num_blocks in stacks.items():
        steps = read_steps(traced.graph, traced.model, stack, num_blocks)
        assert steps is not None
        assert set(names_of(steps)) == STREAMS[name][stack]
        returned = RETURNED_STREAMS[type(model.get_submodule(f"{stack}.0")).__name__]
        for stream in steps.streams:
            assert stream.output is None if returned == [""] else returned[stream.output] == stream.parameter


@pytest.mark.parametrize("name", ["sd3", "sd3-dual"])
def test_a_last_block_without_text_has_no_exit_for_it(trace, name):
    model = build_tiny_model(name)
    traced = trace(model, **tiny_call(model))
    steps = read_steps(traced.graph, traced.model, "transformer_blocks", 5)
    exits = dict(zip(names_of(steps), steps.exits, strict=True))
    assert exits["encoder_hidden_states"] is None
    assert exits["hidden_states"] is not None


@pytest.mark.parametrize("toy", [Plain, LongSkip, UShaped])
def test_a_step_ends_where_the_next_begins(steps_of, toy):
    steps = steps_of(toy(), X)
    assert names_of(steps) == ["x"]
    assert [call.target for call in steps.calls] == [f"blocks.{index}" for index in range(6)]
    assert [steps.step_ends(index) for index in range(5)] == list(steps.entries[1:])
    assert steps.step_ends(5) == steps.exits == (steps.calls[5],)


@pytest.mark.parametrize("toy", [Plain, LongSkip, UShaped, Interleaved, Backwards])
def test_identity_is_to_the_bit_for_any_toy(edit, execute, toy):
    model = toy()
    graph = edit(model, range(len(model.blocks)), X)
    assert torch.equal(execute(graph, model, X), model(X))


LEFT_BEFORE = [
    (0, 1, 2, 3, 4),
    (1, 3, 4),
    (1, 4),
    (0, 3, 2, 1, 4, 5),
    (5, 1, 4, 0, 4, 4),
    (0, 1, 2, 4, 5),
    (0, 1, 3, 2, 3, 4),
]


@pytest.mark.parametrize("layers", LEFT_BEFORE)
def test_a_long_skip_carries_what_its_layer_left_wherever_the_two_stand(edit, execute, layers):
    model = LongSkip()
    expected = model.run(X, layers).detach()
    assert torch.equal(execute(edit(model, layers, X), model, X), expected)


@pytest.mark.parametrize("layers", [(0, 1, 2, 3, 5), (0, 2, 3, 5), (1, 1, 0)])
def test_leaving_out_the_layer_that_a_long_skip_leads_into_drops_the_skip(edit, execute, layers):
    model = LongSkip()
    assert torch.equal(execute(edit(model, layers, X), model, X), model.run(X, layers).detach())


@pytest.mark.parametrize("layers", [(0, 2, 3, 4, 5), (0, 2, 4, 1, 5), (0, 1, 1, 2, 3, 4, 5)])
def test_a_long_skip_whose_layer_did_not_run_once_before_is_refused(edit, layers):
    with pytest.raises(RefusedError, match=r"a long skip connection"):
        edit(LongSkip(), layers, X)


class FirstAgain(Toy):
    """What enters the first block is added to what enters each of them."""

    def forward(self, x):
        first = x
        for block in self.blocks:
            x = block(x + first)
        return x


class FirstAgainScaled(Toy):
    def forward(self, x):
        first = x
        for block in self.blocks:
            x = block(x) + 0.1 * first
        return x


@pytest.mark.parametrize("toy", [FirstAgain, FirstAgainScaled])
def test_going_back_to_what_enters_the_first_block_is_refused(edit, toy):
    with pytest.raises(RefusedError, match=r"`x` is what enters the first block, and `\w+` goes back to it"):
        edit(toy(), (1, 0, 2, 3, 4, 5), X)


@pytest.mark.parametrize("skipped", [0, 1])
def test_skipping_a_layer_of_the_first_half_of_a_u_is_refused(edit, skipped):
    with pytest.raises(RefusedError, match=rf"blocks\[{skipped}\] feeds more than the next block"):
        edit(UShaped(), [index for index in range(6) if index != skipped], X)


def test_the_last_layer_of_a_u_can_be_left_out_with_what_leads_into_it(edit, execute):
    model = UShaped()
    first = model.blocks[0](X)
    second = model.blocks[1](first)
    third = model.blocks[2](second)
    expected = model.blocks[4](model.blocks[3](third + third) + second)
    assert torch.equal(execute(edit(model, range(5), X), model, X), expected.detach())


@pytest.mark.parametrize("toy", [Interleaved, Now])
@pytest.mark.parametrize("layers", [(0, 2), (2, 1, 0), (0, 1, 1, 2), (1, 1)])
def test_the_blocks_of_another_stack_go_with_the_block_in_whose_turn_they_run(edit, execute, steps_of, toy, layers):
    model = toy()
    expected = model.run(X, layers).detach()
    assert torch.equal(execute(edit(model, layers, X), model, X), expected)
    assert steps_of(model, X).between == ("others",)


@pytest.mark.parametrize("toy", [Interleaved, Now])
def test_of_two_stacks_that_take_turns_the_second_is_refused(trace, toy):
    traced = trace(toy(), X)
    with pytest.raises(RefusedError, match="the blocks of blocks run before those of others in the same turns"):
        read_steps(traced.graph, traced.model, "others", 3)


def test_stacks_of_which_one_reads_all_blocks_of_the_other_are_edited_one_at_a_time(trace):
    model = Hints()
    traced = trace(model, X)
    schedules = {
        name: Schedule(name, 6, (Layer(0), Layer(2), *map(Layer, range(3, 6)))) for name in ("blocks", "others")
    }
    with pytest.raises(RefusedError, match="the stacks others and blocks take turns in the forward; edit one of them"):
        rewrite_graph(traced.graph, traced.model, schedules)
    rewrite_graph(traced.graph, traced.model, {"blocks": schedules["blocks"]})


@pytest.mark.parametrize("toy", [WrittenOut, Twice, IgnoresTheBlockBefore])
def test_what_can_not_be_taken_apart_is_refused(steps_of, toy):
    message = {
        WrittenOut: "the stacks blocks and others take turns in the forward; blocks can't be edited",
        Twice: r"blocks\[0\] is called more than once in the model's own forward",
        IgnoresTheBlockBefore: r"`blocks\.\d` does not take x from the block before it",
    }[toy]
    with pytest.raises(RefusedError, match=message):
        steps_of(toy(), X)


def test_a_stack_that_does_not_run_in_order_has_no_steps(steps_of, edit):
    assert steps_of(Backwards(), X) is None
    with pytest.raises(RefusedError, match="does not run the blocks of blocks in their order"):
        edit(Backwards(), [0, 1], X)


def test_two_streams_in_the_other_order_are_told_apart(steps_of, edit, execute):
    model = Joint()
    steps = steps_of(model, X, TEXT)
    assert {stream.parameter: stream.output for stream in steps.streams} == {"x": 1, "text": 0}
    text, x = model.blocks[2](*reversed(model.blocks[0](X, TEXT)))
    graph = edit(model, [0, 2], X, TEXT)
    assert torch.equal(execute(graph, model, X, TEXT), (x.sum() + text.sum()).detach())


@pytest.mark.parametrize(("toy", "args"), [(Plain, (X,)), (Joint, (X, TEXT))])
def test_a_stack_of_one_block_tells_its_streams_by_shape(steps_of, edit, execute, toy, args):
    model = toy(num_blocks=1)
    assert set(names_of(steps_of(model, *args))) == {"x", "text"} & {"x", *(["text"] if len(args) > 1 else [])}
    result = execute(edit(model, [], *args), model, *args)
    assert torch.equal(result, X * 2 if toy is Plain else X.sum() + TEXT.sum())


def test_streams_of_one_block_that_look_alike_are_refused(steps_of):
    alike = TEXT[:, :3]
    with pytest.raises(
        RefusedError, match=r"`blocks\.0` is the only block of its stack, and its output 0 has the shape"
    ):
        steps_of(Joint(num_blocks=1), X, alike)


def test_streams_of_two_blocks_may_look_alike(steps_of):
    steps = steps_of(Joint(num_blocks=2), X, TEXT[:, :3])
    assert {stream.parameter: stream.output for stream in steps.streams} == {"x": 1, "text": 0}


def test_lists_within_blocks_and_empty_lists_are_no_stacks():
    model = Toy(2)
    model.blocks[0].inner = nn.ModuleList([Block()])
    model.empty = nn.ModuleList()
    model.part = Toy(1)
    assert find_stack_names(model) == ("blocks", "part.blocks")
