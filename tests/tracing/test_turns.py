"""What a turn of the forward's loop does before it calls its block leads into this block, what it does after leads out.

Random forwards, put together of lines that the forwards of diffusers have, against an edit by hand: the same lines, run
for the numbers of a random schedule, each with what it had in the model's own order.
"""

import functools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surgery.errors import RefusedError
from surgery.graph.rewrite import rewrite_graph
from surgery.plan.schedule import Group, Layer, Repetition, Schedule
from surgery.tracing import turns
from surgery.tracing.places import Side
from surgery.tracing.tracer import TracedForward

WIDTH = 4
TOKENS, WORDS = 3, 5
GENERATOR = torch.Generator().manual_seed(0)
NUM_BLOCKS = (1, 2, 3, 5, 6)
TOLERANCE = 1e-5  # a few float32 roundings: means and sums of a group may be added up in another order


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR)


GIVEN = {
    "x": random(2, TOKENS, WIDTH),
    "text": random(2, WORDS, WIDTH),
    "own": list(random(7, 2, TOKENS, WIDTH)),
    "gates": random(7, 1, 1, WIDTH),
    "halves": list(random(7, 2, WORDS, WIDTH // 2)),
    "texts": list(random(7, 2, 2, WIDTH)),
}
BEFORE = (
    "x = x + own[i]",
    "x = gates[i] * x",
    "x = x + own[i + 1]",
    "text = torch.cat([text[:, :, : text.shape[-1] // 2], halves[i]], dim=-1)",
    "text = torch.cat([text, texts[i]], dim=1)",
    "if i in layers: x = x + own[i]",
    "if i in layers: x = torch.lerp(own[i], x, 0.5)",
    "if i > n // 2: x = x + left.pop()",
    "x = x + text.mean(1, keepdim=True) * gates[i]",
)
CALLS = (
    "text, x = block(x, text)",
    "text, x = block(x, text, gate=gates[i])",
    "text, x = block(x=x + own[i], text=text)",
    "text, x = block(x, text, gate=x.mean(1, keepdim=True))",
    "text, x = block(x, torch.cat([text, texts[i]], dim=1)); text = text[:, :5]",
    "text, x = block(x, text, gate=left.pop() if i > n // 2 else None)",
    "joint = block(torch.cat([text, x], dim=1)); text, x = joint[:, :-3], joint[:, -3:]",
)
AFTER = (
    "x = x + own[i]",
    "x = own[i + 1] + x",
    "x = x + own[i // 2]",
    "text = text * gates[i + 1]",
    "if i in layers: x = x + own[i]",
    "if i in layers: x = x + hints.pop()",
    "if i < n - 1: x = x * gates[i]",
    "if i < n // 2: left.append(x)",
    "x = x * gates[i] + text.mean(1, keepdim=True)",
)
PUSH = "if i < n // 2: left.append(x)"
SHORT = "text = text[:, :5]"  # the text must not grow from turn to turn
LOOPS = (
    "for i, block in enumerate(self.blocks):",
    "for i in range(n):\n        block = self.blocks[i]",
    "i = -1\n    while (i := i + 1) < n:\n        block = self.blocks[i]",
)
PREAMBLES = ("", "x = x + own[0]", "text = torch.cat([text[:, :, : text.shape[-1] // 2], halves[0]], dim=-1)")
ENDINGS = ("", "x = x + own[n]", "text = torch.cat([text[:, :, : text.shape[-1] // 2], halves[n]], dim=-1)")


class Block(nn.Module):
    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) / 2)

    def forward(self, x, text=None, gate=None):
        if text is None:
            return x + torch.tanh(x @ self.weight)
        mixed = torch.tanh(torch.cat([text, x], dim=1) @ self.weight)
        words = text.shape[1]
        return text + mixed[:, :words], x + mixed[:, words:] * (1 if gate is None else gate)


@dataclass(frozen=True)
class Lines:
    """The lines of a forward."""

    loop: str
    preamble: str
    before: tuple[str, ...]
    call: str
    after: tuple[str, ...]
    ending: str
    num_blocks: int
    layers: frozenset[int]

    @property
    def source(self):
        return "\n".join(
            [
                "def forward(self, x, text, own, gates, halves, texts, hints):",
                f"    n, left, layers, hints = {self.num_blocks}, [], {sorted(self.layers)}, list(hints)",
                f"    {self.preamble or 'pass'}",
                f"    {self.loop}",
                *(f"        {line}" for line in self.turn.splitlines()),
                f"    {self.ending or 'pass'}",
                "    return x.mean() * text.mean(1) + x.sum(1)",
            ]
        )

    @property
    def turn(self):
        return "\n".join([*self.before, self.call, *self.after, SHORT])

    @property
    def is_of_one_turn(self):
        """Whether there is but one turn in which something is done, so that it may be refused."""
        return self.num_blocks == 1 or (self.layers == {0} and "i in layers" in "".join(self.before))


def lines(**fixed):
    """Lines that run: what is taken from `left` was put there."""

    def made(loop, preamble, before, call, after, ending, num_blocks, layers):
        if "left" in call:
            before = tuple(line for line in before if "left" not in line)
        if "left" in call or any("left" in line for line in before):
            after = (*(line for line in after if "left" not in line), PUSH)
        layers = frozenset(i for i in layers if i < num_blocks)
        return Lines(loop, preamble, before, call, after, ending, num_blocks, layers)

    some = functools.partial(st.lists, max_size=2, unique=True)
    drawn = {
        "loop": st.sampled_from(LOOPS),
        "preamble": st.sampled_from(PREAMBLES),
        "before": some(st.sampled_from(BEFORE)).map(tuple),
        "call": st.sampled_from(CALLS),
        "after": some(st.sampled_from(AFTER)).map(tuple),
        "ending": st.sampled_from(ENDINGS),
        "num_blocks": st.sampled_from(NUM_BLOCKS),
        "layers": st.sets(st.integers(0, 5)),
    }
    return st.builds(made, **{**drawn, **{key: st.just(value) for key, value in fixed.items()}})


def schedules(num_blocks):
    """Items that may stand in a schedule of this many blocks: a permutation, or anything."""
    index = st.integers(0, num_blocks - 1)
    layer = index.map(Layer)
    few = st.lists(layer, min_size=1, max_size=3).map(tuple)
    group = st.builds(Group, few, st.sampled_from(["mean", "sum"]), st.integers(1, 2))
    anything = st.lists(layer | layer | group | st.builds(Repetition, few, st.just(2)), max_size=6)
    return st.permutations(range(num_blocks)).map(lambda order: tuple(map(Layer, order))) | anything.map(tuple)


def forward_of(code):
    names = {"torch": torch}
    exec(code.source, names)
    return names["forward"]


def model_of(code):
    made = type("Made", (nn.Module,), {"forward": forward_of(code)})()
    made.blocks = nn.ModuleList(Block(seed) for seed in range(code.num_blocks))
    return made


class NoRuleError(Exception):
    """A long skip whose layer has not run once before, on its own."""


class Left:
    """What the layers have left, by their numbers: each layer takes from the one from which it takes in the model."""

    def __init__(self, num_blocks):
        waiting = list(range(num_blocks // 2))
        self.sources = {index: waiting.pop() for index in range(num_blocks // 2 + 1, num_blocks)}
        self.now, self.kept, self.times, self.is_shared = 0, {}, dict.fromkeys(range(num_blocks), 0), False

    def append(self, x):
        self.kept[self.now] = x
        self.times[self.now] += 2 if self.is_shared else 1

    def pop(self):
        source = self.sources[self.now]
        if self.times[source] != 1:
            raise NoRuleError(source)
        return self.kept[source]


def run_by_hand(model, code, items, hints):
    """The lines of the turns, run for the numbers of a schedule."""
    left = Left(code.num_blocks)
    names = {**GIVEN, "torch": torch, "n": code.num_blocks, "layers": code.layers, "left": left}
    hint_of = dict(zip(sorted(code.layers), reversed(hints), strict=False))

    def run_line(line, i, x, text):
        left.now = i
        scope = {**names, "i": i, "x": x.clone(), "text": text, "hints": [hint_of.get(i)]}
        scope["block"] = model.blocks[i] if i < code.num_blocks else None
        exec(line, scope)
        return scope["x"], scope["text"]

    def run_items(items, x, text):
        for item in items:
            match item:
                case Layer(index):
                    x, text = run_line(code.turn, index, x, text)
                case Group(layers, combine, loops):
                    left.is_shared = True
                    for _ in range(loops):
                        outputs = [run_line(code.turn, layer.index, x, text) for layer in layers]
                        x, text = (
                            combined(combine, *parts)
                            for parts in zip((x, text), zip(*outputs, strict=True), strict=True)
                        )
                    left.is_shared = False
                case Repetition(inner, times):
                    for _ in range(times):
                        x, text = run_items(inner, x, text)
        return x, text

    x, text = run_line(code.preamble, code.num_blocks, GIVEN["x"], GIVEN["text"])
    x, text = run_items(items, x, text)
    x, text = run_line(code.ending, code.num_blocks, x, text)
    return x.mean() * text.mean(1) + x.sum(1)


def combined(combine, before, outputs):
    if combine == "mean":
        return torch.stack(outputs).mean(0)
    return before + torch.stack([output - before for output in outputs]).sum(0)


@pytest.fixture(scope="module")
def by_graph(trace, execute):
    """The output of the rewritten graph of a model of these lines."""

    def output(model, code, items, hints):
        given = {**GIVEN, "hints": hints}
        traced = trace(model, **given)
        schedule = Schedule("blocks", code.num_blocks, items)
        graph = rewrite_graph(traced.graph, traced.model, {"blocks": schedule})
        return execute(TracedForward(graph, model, 0), model, **given)

    return output


def compare(by_graph, code, items):
    model, hints = model_of(code), list(GIVEN["own"][: len(code.layers)])
    try:
        with torch.no_grad():
            by_hand = run_by_hand(model, code, items, hints)
    except NoRuleError:
        with pytest.raises(RefusedError, match="a long skip connection, say"):
            by_graph(model, code, items, hints)
        return True
    try:
        result = by_graph(model, code, items, hints)
    except RefusedError:
        return code.is_of_one_turn
    return bool((result - by_hand).norm() <= TOLERANCE * by_hand.norm())


@settings(max_examples=40)
@given(st.data())
def test_each_block_keeps_what_its_turn_does_for_it(by_graph, data):
    code = data.draw(lines())
    assert compare(by_graph, code, data.draw(schedules(code.num_blocks))), code.source


TEXT_OF_ITS_OWN = Lines(LOOPS[0], "", (BEFORE[3],), CALLS[0], (), ENDINGS[2], 4, frozenset())
TEXT_IS_CUT_OFF = Lines(LOOPS[0], "", (), CALLS[4], (), "", 4, frozenset())
BOTH_IN_ONE = Lines(LOOPS[0], "", (BEFORE[3],), CALLS[6], (AFTER[4],), ENDINGS[0], 4, frozenset({1, 3}))
REVERSED = tuple(map(Layer, (2, 1, 0, 3)))


@pytest.mark.parametrize("code", [TEXT_OF_ITS_OWN, TEXT_IS_CUT_OFF, BOTH_IN_ONE])
def test_a_check_of_turns_sees_one_that_is_told_wrongly(by_graph, monkeypatch, code):
    assert compare(by_graph, code, REVERSED)
    monkeypatch.setattr(turns.Reader, "side", lambda self, node, gap: Side.AFTER if gap else Side.BEFORE)
    assert not compare(by_graph, code, REVERSED)
