"""What the code of a forward does with a stack: plain loops are known, all else counts as going by numbers."""

import pytest
from diffusers.models.attention_processor import Attention
from torch import nn

from surgery.dit import DiT
from surgery.tracing.stack_code import is_read, use_of_numbers


class Model(nn.Module):
    """Two stacks of three blocks, and what forwards may use beside them."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        self.others = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        self.depth, self.label = 3, 0


class Plain(Model):
    def forward(self, x):
        for block in self.blocks:
            if self.training:
                x = x + 1
            x = block(x)
        return x


class Counted(Model):
    def forward(self, x, residuals=None):
        for i, block in enumerate(self.blocks):
            x = block(x)
            if residuals is not None and self.depth:
                x = x + residuals[i // (len(self.blocks) // len(residuals))]
        for i, other in enumerate(self.others):
            x = other(x) * i
        return x


class Helped(Model):
    def forward(self, x):
        return self.run(x)

    def run(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class OfFirst(Model):
    def forward(self, x):
        x = self.blocks[0].weight + x
        for block in self.blocks:
            x = block(x)
        return x


class ByNumber(Model):
    def forward(self, x):
        for i, block in enumerate(self.blocks):
            x = block(x) if i % 2 else block(x) + 1
        return x


class WithoutArgument(Model):
    def forward(self, x, kept=None):
        for i, block in enumerate(self.blocks):
            x = block(x)
            if kept is None:
                x = x * i
        return x


class ByCounter(Model):
    def forward(self, x, texts):
        n = 0
        for block in self.blocks:
            x = block(x) + texts[n]
            n += 1  # noqa: SIM113  (as diffusers has it)
        return x


class LongSkips(Model):
    def forward(self, x):
        skips = []
        for block in self.blocks:
            x = block(x)
            skips.append(x)
        return x + skips[-1]


class Zipped(Model):
    def forward(self, x, scales):
        for block, scale in zip(self.blocks, scales, strict=True):
            x = block(x) * scale
        return x


class Sliced(Model):
    def forward(self, x):
        for block in self.blocks[:2]:
            x = block(x)
        return x


class Long(Model):
    def forward(self, x):
        for block in self.blocks:
            x = block(x) / self.depth
        return x


class Indirect(Model):
    def forward(self, x):
        return self.first(x)

    def first(self, x):
        stack = self.blocks
        return stack[0](x)


class Never(Model):
    def forward(self, x):
        return x


@pytest.mark.parametrize("owner", [Plain, Counted, Helped, Long])
def test_a_plain_loop_is_known(owner):
    assert use_of_numbers(owner(), "blocks") is None


@pytest.mark.parametrize(
    ("owner", "line"),
    [
        (OfFirst, "has `x = self.blocks[0].weight + x`"),
        (ByNumber, "has `x = block(x) if i % 2 else block(x) + 1`"),
        (WithoutArgument, "has `x = x * i`"),
        (ByCounter, "has `n += 1`"),
        (LongSkips, "has `skips.append(x)`"),
        (Zipped, "has `for block, scale in zip(self.blocks, scales, strict=True):`"),
        (Sliced, "has `for block in self.blocks[:2]:`"),
        (Indirect, "has `stack = self.blocks`"),
        (Never, "does not run its blocks one after the other"),
    ],
)
def test_what_else_is_done_with_a_stack_is_said_with_its_line(owner, line):
    assert use_of_numbers(owner(), "blocks") == f"the code of {owner.__name__} {line}"


def test_a_number_belongs_to_the_loop_that_counts_it():
    assert use_of_numbers(Counted(), "others") == "the code of Counted has `x = other(x) * i`"


def test_the_length_of_a_stack_is_read_from_its_field_too():
    assert use_of_numbers(Long(), "blocks", ["depth"]) == "the code of Long has `x = block(x) / self.depth`"


def test_a_stack_within_a_module_is_read_in_the_code_of_that_module():
    outer = nn.Module()
    outer.inner = ByCounter()
    assert use_of_numbers(outer, "inner.blocks") == "the code of ByCounter has `n += 1`"


def test_an_attribute_that_is_only_written_is_not_read():
    assert is_read([Model], "depth") and not is_read([Model], "label")


def test_what_is_read_by_what_a_class_inherits_from_is_read():
    """The reading code stands in a file of its own."""

    class Own(Attention):
        pass

    assert not is_read([Model], "group_norm")
    assert is_read([Own], "group_norm") and is_read([Model, Own], "group_norm")


def test_a_class_that_says_it_is_of_a_package_is_read_where_its_methods_are():
    assert DiT.__module__ == "surgery.dit"  # whose file reads nothing
    assert is_read([DiT], "positions") and not is_read([DiT], "num_embeds_ada_norm")


class AddsUp(Model):
    def forward(self, x):
        n = 0
        for block in self.blocks:
            x = block(x) + n
            n = n + 1
        return x


class Halves(Model):
    def forward(self, x):
        scale = 1.0
        for block in self.blocks:
            scale *= 0.5
            x = block(x) * scale
        return x


class Collects(Model):
    def forward(self, x):
        done = ()
        for block in self.blocks:
            x = block(x) + len(done)
            done = (*done, x)
        return x


class NotesItems(Model):
    def forward(self, x):
        done = {}
        for block in self.blocks:
            x = block(x) + len(done)
            done[block] = x
        return x


class TakesOff(Model):
    def forward(self, x, gates):
        for block in self.blocks:
            gate, *gates = gates
            x = block(x) * gate
        return x


class GivenByAll(Model):
    def forward(self, x, encoder_hidden_states=None):
        for i, block in enumerate(self.blocks):
            x = block(x) + i if encoder_hidden_states is not None else block(x)
        return x


class MadeAnew(Model):
    """What is made anew in each round is not carried, and neither is what the blocks return."""

    def forward(self, x, temb):
        for block in self.blocks:
            shift = temb * 2
            shift = shift[:, None]
            x = block(x) + shift
            x[:, 0] = 0
        return x


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (AddsUp, "n = n + 1"),
        (Halves, "scale *= 0.5"),
        (Collects, "done = (*done, x)"),
        (NotesItems, "done[block] = x"),
        (TakesOff, "gate, *gates = gates"),
        (GivenByAll, "x = block(x) + i if encoder_hidden_states is not None else block(x)"),
    ],
)
def test_what_is_carried_from_round_to_round_counts_as_a_number(kind, line):
    assert use_of_numbers(kind(), "blocks") == f"the code of {kind.__name__} has `{line}`"


def test_what_is_made_anew_in_each_round_does_not():
    assert use_of_numbers(MadeAnew(), "blocks") is None
