"""Forwards that can't be traced whole: their stacks are rewritten, the rest runs as it is, and that is said."""

import copy
import warnings

import diffusers
import pytest
import torch
from torch import nn

from surgery.anatomy.from_model import read_anatomy
from surgery.errors import PartialTraceWarning, RefusedError, TraceError
from surgery.graph.apply import apply
from surgery.graph.rewritten_forward import RewrittenForward
from surgery.graph.variant import source_of_variant
from surgery.spec.load import read_spec
from surgery.testing import build_tiny_model

WIDTH = 8


def spec(*operations):
    return read_spec("surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations))


def edit(model, *operations):
    return apply(model, spec(*operations))


@pytest.fixture
def run():
    """The output of a model without gradients; that it is traced in part is expected."""

    def call(model, *args, **kwargs):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", PartialTraceWarning)
            return model(*args, **kwargs)

    return call


class Block(nn.Module):
    """Two streams, and a context that both are shifted by."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden_states, encoder_hidden_states, shift, scale=1.0):
        mixed = encoder_hidden_states.mean(dim=1, keepdim=True) + shift
        return encoder_hidden_states + self.text(mixed), hidden_states + scale * self.image(hidden_states + mixed)


class Reads(nn.Module):
    """A forward that decides on the contents of its input before and after its blocks."""

    num_blocks = 5

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block() for _ in range(self.num_blocks)])
        self.embedding = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden_states, encoder_hidden_states, scale=1.0):
        length = int(hidden_states.sum() > 0) + 2  # contents decide how much of the text is read
        text, shift = encoder_hidden_states[:, :length], self.embedding(encoder_hidden_states[:, :1])
        for index, block in enumerate(self.blocks):
            text, hidden_states = self.run_block(index, block, hidden_states, text, shift, scale)
        return hidden_states + text.mean() if float(text.detach().sum()) > 0 else hidden_states - 1

    def run_block(self, index, block, hidden_states, text, shift, scale):
        return block(hidden_states, text, shift=shift, scale=scale)


class OwnContext(Reads):
    """Each block has a context of its own, made between the blocks."""

    def run_block(self, index, block, hidden_states, text, shift, scale):
        return block(hidden_states, text, shift=shift * (index + 1), scale=scale + index)


class LongSkip(Reads):
    """The last block is given the text that the first returned."""

    def forward(self, hidden_states, encoder_hidden_states, scale=1.0):
        text, kept = encoder_hidden_states[:, :1], None  # one token, so that it can be added to all others
        for index, block in enumerate(self.blocks):
            shift = kept if index == self.num_blocks - 1 else self.embedding(encoder_hidden_states[:, :1])
            text, hidden_states = block(hidden_states, text, shift)
            kept = text if index == 0 else kept
        assert float(hidden_states.sum()) > -1e9
        return hidden_states


class LongSkipBetween(LongSkip):
    """What is handed on is computed from what a block returned."""

    def forward(self, hidden_states, encoder_hidden_states, scale=1.0):
        text = encoder_hidden_states
        for block in self.blocks:
            text, hidden_states = block(hidden_states, text, text.mean(dim=1, keepdim=True))
        assert float(hidden_states.sum()) > -1e9
        return hidden_states


class AddsBetween(Reads):
    """Code between the blocks changes a stream."""

    def run_block(self, index, block, hidden_states, text, shift, scale):
        text, hidden_states = block(hidden_states, text, shift=shift, scale=scale)
        return text, hidden_states + 1


class ReadsBetween(Reads):
    """Code between the blocks decides on the contents of a stream."""

    def run_block(self, index, block, hidden_states, text, shift, scale):
        text, hidden_states = block(hidden_states, text, shift=shift, scale=scale)
        return text, hidden_states if hidden_states.sum().item() else -hidden_states


class ComparesBetween(Reads):
    """Code between the blocks compares a stream with a context."""

    def run_block(self, index, block, hidden_states, text, shift, scale):
        text, hidden_states = block(hidden_states, text, shift=shift, scale=scale)
        return text, hidden_states if torch.equal(hidden_states, shift) else -hidden_states


class TurnsBetween(Reads):
    """Code between the blocks works on a stream in place, which stays the same object."""

    def run_block(self, index, block, hidden_states, text, shift, scale):
        text, hidden_states = block(hidden_states, text, shift=shift, scale=scale)
        hidden_states.transpose_(0, 0)
        return text, hidden_states


class Backwards(Reads):
    """The blocks run from the last to the first."""

    def forward(self, hidden_states, encoder_hidden_states, scale=1.0):
        for block in reversed(self.blocks):
            encoder_hidden_states, hidden_states = block(hidden_states, encoder_hidden_states, shift=scale)
        assert float(hidden_states.sum()) > -1e9
        return hidden_states


class ReadsABlock(Reads):
    """The forward reads a weight of its third block."""

    def forward(self, hidden_states, encoder_hidden_states, scale=1.0):
        return super().forward(hidden_states + self.blocks[2].image.bias, encoder_hidden_states, scale)


def inputs(seed=0, length=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, WIDTH, generator=generator) + 1, torch.randn(2, length, WIDTH, generator=generator)


def by_hand(model, order, hidden_states, encoder_hidden_states, scale=1.0):
    """`Reads` and `OwnContext` with their blocks in another order, each with the context of its own number."""
    edited = copy.deepcopy(model)
    numbers = iter(order)

    def run_block(index, block, image, text, shift, factor):
        number = next(numbers, None)
        if number is None:
            return text, image
        return type(model).run_block(edited, number, model.blocks[number], image, text, shift, factor)

    edited.run_block = run_block
    while len(edited.blocks) < len(order):
        edited.blocks.append(model.blocks[0])
    return edited(hidden_states, encoder_hidden_states, scale)


@pytest.mark.parametrize("toy", [Reads, OwnContext])
@pytest.mark.parametrize(
    ("operation", "order"),
    [
        ("skip: 'blocks[1:3]'", [0, 3, 4]),
        ("skip: 'blocks[-1]'", [0, 1, 2, 3]),
        ("skip: 'blocks[0]'", [1, 2, 3, 4]),
        ("skip: 'blocks[:]'", []),
        ("reverse: 'blocks[:]'", [4, 3, 2, 1, 0]),
        ("repeat: {layers: 'blocks[1:3]', times: 2}", [0, 1, 2, 1, 2, 3, 4]),
        ("order: {stack: blocks, as: [3, 0, 3]}", [3, 0, 3]),
    ],
)
def test_a_stack_runs_as_its_schedule_says_and_the_rest_as_it_is(run, toy, operation, order):
    model = toy().eval()
    variant = edit(model, operation)
    for seed, length in ((0, 4), (1, 4), (2, 7)):
        image, text = inputs(seed, length)
        for sign in (1, -1):
            assert torch.equal(run(variant, sign * image, text), run(by_hand, model, order, sign * image, text))
    assert torch.equal(run(variant, image, text, scale=0.5), run(by_hand, model, order, image, text, 0.5))
    assert [name for name, _ in variant.blocks.named_children()] == [str(index) for index in sorted(set(order))]


def test_groups_average_each_stream(run):
    model = Reads().eval()
    image, text = inputs()
    got = run(edit(model, "order: {stack: blocks, as: [{parallel: [1, 3], loops: 2}]}"), image, text)
    used, shift = text[:, :3], model.embedding(text[:, :1])
    with torch.no_grad():
        for _ in range(2):
            pairs = [model.blocks[index](image, used, shift) for index in (1, 3)]
            used, image = (torch.stack(stream).mean(dim=0) for stream in zip(*pairs, strict=True))
        want = image + used.mean() if float(used.sum()) > 0 else image - 1
    torch.testing.assert_close(got, want)


def test_without_operations_it_is_the_model_to_the_bit(run):
    model = OwnContext().eval()
    assert torch.equal(run(edit(model, "scale: {layers: 'blocks[:]', by: 1.0}"), *inputs()), run(model, *inputs()))


def test_it_is_said_once_with_the_line_that_can_not_be_traced():
    """Of two decisions on contents the second: the first hangs on what is given, and could be worked out."""
    variant = edit(Reads().eval(), "skip: 'blocks[1]'")
    with torch.no_grad():
        with pytest.warns(PartialTraceWarning, match=r"test_partial.py:\d+: `return .*text.detach\(\).sum\(\)\) > 0"):
            variant(*inputs())
        variant(*inputs(1))  # warnings are errors here
    source = source_of_variant(variant)
    assert "# Reads can't be traced" in source and 'getattr(self.blocks, "2")' in source
    assert 'getattr(self.blocks, "1")' not in source
    compile(source, "source", "exec")


def test_gradients_flow_and_the_original_is_left_alone():
    model = Reads().eval()
    variant = edit(model, "skip: 'blocks[1]'")
    with pytest.warns(PartialTraceWarning):
        variant(*inputs()).sum().backward()
    assert variant.blocks[0].image.weight.grad is not None
    assert all(value.grad is None for value in model.parameters())
    assert list(model.blocks._modules) == ["0", "1", "2", "3", "4"]


@pytest.fixture
def whole_traces(monkeypatch):
    """Whether each of the whole graphs that were traced hangs on contents."""
    found = []
    trace = RewrittenForward.trace_whole

    def noted(self, variant, call, *, reads_contents):
        traced = trace(self, variant, call, reads_contents=reads_contents)
        found.append(reads_contents)
        return traced

    monkeypatch.setattr(RewrittenForward, "trace_whole", noted)
    return found


def test_what_a_forward_decides_on_contents_is_checked_and_traced_once_for_each(run, whole_traces):
    """Lumina2 reads the lengths of its texts, and gives its blocks a mask only where they differ."""
    model = build_lumina2()
    edited = copy.deepcopy(model)
    del edited.layers[2]
    variant = edit(model, "skip: 'layers[2]'")
    for lengths in 2 * ((7, 7), (7, 5), (3, 7), (7, 7)):
        call = lumina2_call(lengths)
        with torch.no_grad():  # warnings are errors here: none is traced in part
            assert torch.equal(variant(**call).sample, edited(**call).sample)
    assert torch.equal(run(variant, **lumina2_call((4,))).sample, run(edited, **lumina2_call((4,))).sample)
    assert whole_traces == 3 * [True]  # one for each way in which lengths are decided on


def build_lumina2():
    torch.manual_seed(0)
    model = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=4,
        num_refiner_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        cap_feat_dim=12,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(64, 64, 64),
    )
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape) * 0.05)
    return model.eval()


def lumina2_call(lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    num = len(lengths)
    return {
        "hidden_states": torch.randn(num, 4, 8, 8, generator=generator),
        "timestep": torch.full((num,), 0.5),
        "encoder_hidden_states": torch.randn(num, 7, 12, generator=generator),
        "encoder_attention_mask": torch.arange(7)[None] < torch.tensor(lengths)[:, None],
    }


def test_example_inputs_do_not_stand_in_for_the_contents_of_real_ones(whole_traces):
    """Lumina2 has example inputs; it is traced when it first runs, and its anatomy is read on made up contents."""
    variant = edit(build_lumina2(), "skip: 'layers[1]'")
    assert whole_traces == []
    with torch.no_grad():
        variant(**lumina2_call((7, 5)))
    assert whole_traces == [True]
    assert [name for name, _ in variant.layers.named_children()] == ["0", "2", "3"]
    anatomy = read_anatomy(build_lumina2())
    assert anatomy.trace_failure is None
    assert [(stack.name, stack.streams) for stack in anatomy.stacks][-1] == ("layers", ("hidden_states",))
    with pytest.raises(RefusedError, match="can't be traced whole; its graph is known once it has run"):
        source_of_variant(edit(build_lumina2(), "skip: 'layers[1]'"))


def test_every_stack_of_lumina2_can_be_edited_at_once(run):
    model = build_lumina2()
    edited = copy.deepcopy(model)
    del edited.layers[1], edited.noise_refiner[0], edited.context_refiner[1]
    variant = edit(model, "skip: ['layers[1]', 'noise_refiner[0]', 'context_refiner[1]']")
    assert torch.equal(run(variant, **lumina2_call((7, 5))).sample, run(edited, **lumina2_call((7, 5))).sample)


def test_a_long_skip_connection_stays_or_is_refused(run):
    model = LongSkip().eval()
    image, text = inputs()
    kept = edit(model, "skip: 'blocks[2]'")
    edited = copy.deepcopy(model)
    edited.blocks[2].forward = lambda image, text, shift: (text, image)
    assert torch.equal(run(kept, image, text), run(edited, image, text))
    with pytest.raises(RefusedError, match=r"blocks\[0\] feeds more than the next block"):
        run(edit(model, "skip: 'blocks[0]'"), image, text)


@pytest.mark.parametrize(
    ("toy", "message"),
    [
        (AddsBetween, r"between blocks\[0\] and \[1\] it computes hidden_states from what the blocks return"),
        (LongSkipBetween, r"between blocks\[0\] and \[1\] it computes shift from what the blocks return"),
        (TurnsBetween, r"between blocks\[0\] and \[1\] it computes hidden_states from what the blocks return"),
        (ReadsBetween, "between the blocks of blocks it decides on what they return"),
        (ComparesBetween, "between the blocks of blocks it decides on what they return"),
        (Backwards, "it does not run the blocks of blocks in their order, each once"),
    ],
)
def test_code_between_the_blocks_is_refused(run, toy, message):
    model = toy().eval()
    variant = edit(model, "skip: 'blocks[1]'")
    with pytest.raises(TraceError, match=rf"{toy.__name__} can't be traced: .*\n.*{message}"):
        run(variant, *inputs())


def test_code_between_the_blocks_that_appears_later_is_noticed(run):
    model = Reads().eval()
    variant = edit(model, "skip: 'blocks[1]'")
    run(variant, *inputs())
    variant.run_block = lambda *args: AddsBetween.run_block(variant, *args)
    with pytest.raises(TraceError, match="it computes hidden_states from what the blocks return"):
        run(variant, *inputs())


def test_a_forward_that_reads_a_block_keeps_it_or_is_refused(run):
    model = ReadsABlock().eval()
    image, text = inputs()
    want = run(by_hand, model, [0, 2, 3, 4], image, text)
    assert torch.equal(run(edit(model, "skip: 'blocks[1]'"), image, text), want)
    with pytest.raises(
        RefusedError, match=r"the forward reads blocks\.2\.image\.bias, which the plan removes; keep it"
    ):
        run(edit(model, "skip: 'blocks[2]'"), image, text)


def test_gradient_checkpointing_is_refused(run):
    variant = edit(Reads().eval(), "skip: 'blocks[1]'")
    run(variant, *inputs())
    variant.gradient_checkpointing = True
    with pytest.raises(RefusedError, match="gradient checkpointing is not possible"), pytest.warns(PartialTraceWarning):
        variant(*inputs())


def test_the_anatomy_of_such_a_model_says_why_its_streams_are_unknown(monkeypatch):
    def fail(*_):
        raise TraceError("line 3 reads a tensor")

    monkeypatch.setattr("surgery.anatomy.from_model.trace_forward", fail)
    anatomy = read_anatomy(build_tiny_model("pixart"))
    assert (anatomy.trace_failure, anatomy.example) == ("line 3 reads a tensor", ())
    assert [stack.streams for stack in anatomy.stacks] == [None]
