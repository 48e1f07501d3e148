"""A call that a traced graph was not made for is traced again; it never runs through the wrong graph."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny import tiny_anatomy, tiny_model

from surgery.errors import InputError, PartialTraceWarning
from surgery.graph.apply import apply
from surgery.graph.held_graphs import HeldGraph
from surgery.graph.variant import build_variant, forward_of_variant
from surgery.plan.replacements import MeanValues
from surgery.profiles.means import read_means, write_means
from surgery.spec.load import read_spec
from surgery.testing import TINY_MODELS, build_tiny_model, run_by_hand, tiny_call

IDENTITY = read_spec("surgery: v1\noperations: []")
SQUARE_ONLY = ("dit",)


def num_graphs(variant):
    return len(forward_of_variant(variant).graphs)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("sd3-dual", "chroma"))) for name in TINY_MODELS]
)  # quick: sd3 and flux, which are much like them
def test_other_sizes_and_batches_are_right(plan_of, run, name):
    model, anatomy = tiny_model(name), tiny_anatomy(name)
    stack = anatomy.stacks[0].name
    plan = plan_of([f'reverse: "{stack}[0:3]"'], anatomy)
    variant = build_variant(model, plan, anatomy)
    other = {"height": 12, "width": 12 if name in SQUARE_ONLY else 4, "image": 15, "text": 5, "batch": 3}
    for sizes in ({}, other, {}, {"batch": 1}):
        call = tiny_call(model, **sizes)
        assert torch.equal(run(variant, call), run_by_hand(model, plan, call))


def test_a_graph_without_decisions_serves_all_sizes(run):
    variant = apply(build_tiny_model("pixart"), IDENTITY)
    before = num_graphs(variant)
    run(variant, tiny_call(variant, height=12, width=4, text=9))
    assert num_graphs(variant) == before


def test_a_size_that_decides_is_traced_again(run):
    """DiT takes the square root of the number of tokens as an int."""
    model = build_tiny_model("dit")
    variant = apply(model, IDENTITY)
    before = num_graphs(variant)
    for side in (8, 12, 8, 12):
        call = tiny_call(model, height=side, width=side)
        assert torch.equal(run(variant, call), run(model, call))
    assert num_graphs(variant) == before + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype_is_right(run, dtype):
    model = build_tiny_model("auraflow")
    variant = apply(model, IDENTITY)
    variant.to(dtype)
    call = {name: value.to(dtype) for name, value in tiny_call(model).items()}
    assert torch.equal(run(variant, call), run(model.to(dtype), call))


def test_a_skipped_block_follows_the_dtype(run):
    model = build_tiny_model("sd3")
    variant = apply(model, read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[4]"}]'))
    variant.to(torch.bfloat16)
    call = {name: value.to(torch.bfloat16) for name, value in tiny_call(model).items()}
    expected = model.to(torch.bfloat16)(**call, skip_layers=[4]).sample
    assert torch.equal(run(variant, call), expected)


def test_another_set_of_arguments_is_right(run):
    model = build_tiny_model("pixart")
    variant, call = apply(model, IDENTITY), tiny_call(model)
    masked = {**call, "encoder_attention_mask": torch.tensor([[1.0] * 3 + [0.0] * 4] * 2)}
    unmasked = {name: value for name, value in call.items() if name != "encoder_attention_mask"}
    as_bias = {**call, "encoder_attention_mask": torch.zeros(2, 1, 7)}
    for other in (call, unmasked, masked, as_bias, call):
        assert torch.equal(run(variant, other), run(model, other))


def test_positional_and_keyword_arguments_are_the_same(run):
    model = build_tiny_model("sd3")
    variant, call = apply(model, IDENTITY), tiny_call(model)
    before = num_graphs(variant)
    names = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")
    with torch.no_grad():
        (output,) = variant(*(call[name] for name in names), return_dict=False)
    assert torch.equal(output, run(model, call))
    assert num_graphs(variant) == before + 1  # return_dict is another graph, positions are not


def test_an_int_that_decides_is_right(run):
    """SD3's skip_layers is a list of ints that the forward branches on."""
    model = build_tiny_model("sd3")
    variant, call = apply(model, IDENTITY), tiny_call(model)
    for layers in ([0], [2], [0, 2], None, [2]):
        assert torch.equal(run(variant, {**call, "skip_layers": layers}), run(model, {**call, "skip_layers": layers}))


def test_training_mode_and_gradient_mode_have_graphs_of_their_own(run):
    variant = apply(build_tiny_model("pixart"), IDENTITY)
    before = num_graphs(variant)
    call = tiny_call(variant)
    run(variant, call)
    assert variant(**call).sample.requires_grad
    assert num_graphs(variant) == before + 1


class ReadsItsInput(torch.nn.Module):
    """A forward that decides on the contents of a tensor."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])

    def forward(self, hidden_states):
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states if hidden_states.sum() > 0 else -hidden_states


def test_a_forward_that_reads_a_tensor_is_traced_in_part_and_its_line_is_named():
    model = ReadsItsInput()
    variant = apply(model, IDENTITY)
    line = r"test_guards.py:\d+: `return hidden_states if hidden_states.sum\(\) > 0"
    for x in (torch.ones(2, 4), -torch.ones(2, 4)):
        with pytest.warns(PartialTraceWarning, match=line) if x.sum() > 0 else contextlib.nullcontext():
            assert torch.equal(variant(x), model(x))


class Toy(torch.nn.Module):
    """Three blocks, and what a subclass does with their result."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])
        self.factor = 2
        self.table = torch.arange(4.0)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.finish(x)


class CountsPieces(Toy):
    def finish(self, x):
        return torch.stack([piece * 2 for piece in x.unbind(1)], 1)


class ReadsAttributes(Toy):
    def finish(self, x):
        return x * self.factor if self.factor > 2 else x - self.factor


class ChangesInPlace(Toy):
    def finish(self, x):
        x = x * 1
        x += 1
        x *= x.shape[-1]
        return x


class ChangesAView(Toy):
    def finish(self, x):
        view = x[:, :1]
        view *= 3
        return x


class UsesATable(Toy):
    def finish(self, x):
        return x + self.table * 2


def test_the_number_of_pieces_is_guarded(run_toy):
    model = CountsPieces()
    variant = apply(model, IDENTITY)
    for length in (3, 5, 3, 2):
        x = torch.randn(2, length, 4)
        assert torch.equal(run_toy(variant, x), run_toy(model, x))


def test_attributes_of_the_model_are_guarded(run_toy):
    model, x = ReadsAttributes(), torch.randn(2, 4)
    variant = apply(model, IDENTITY)
    for factor in (2, 3, 2, 5):
        model.factor = variant.factor = factor
        assert torch.equal(run_toy(variant, x), run_toy(model, x))


@pytest.mark.parametrize("toy", [ChangesInPlace, UsesATable])
def test_in_place_operators_and_plain_tensors_are_right(run_toy, toy):
    model, x = toy(), torch.randn(2, 4)
    assert torch.equal(run_toy(apply(model, IDENTITY), x), run_toy(model, x))


def test_changing_a_view_in_place_is_never_traced(run_toy):
    model, x = ChangesAView(), torch.randn(2, 4)
    with pytest.warns(PartialTraceWarning, match="still looks at the same memory"):
        assert torch.equal(run_toy(apply(model, IDENTITY), x), run_toy(model, x))


@pytest.fixture
def run_toy():
    def call(model, x):
        with torch.no_grad():
            return model(x)

    return call


def test_other_threads_run_while_one_traces(run):
    model, other = build_tiny_model("flux"), build_tiny_model("pixart")
    call = tiny_call(other)
    expected = run(other, call)
    with ThreadPoolExecutor(2) as pool:
        tracing = pool.submit(apply, model, IDENTITY)
        outputs = [run(other, call)]
        while not tracing.done():
            outputs.append(run(other, call))
        tracing.result()
    assert all(torch.equal(output, expected) for output in outputs)


def test_a_plan_with_means_takes_no_other_file(plan_of, tmp_path):
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        means = {"transformer_blocks.1.ff": {"hidden_states": rng.normal(size=16)}}
        write_means(means, tmp_path / f"{name}.safetensors")
    digest = read_means(tmp_path / "a.safetensors")
    operation = 'replace: {component: "transformer_blocks[1].ff", with: mean}'
    plan = plan_of([operation], tiny_anatomy("pixart"), MeanValues(digest.digest, digest.widths))
    apply(tiny_model("pixart"), plan, profile=tmp_path / "a.safetensors")
    for wrong in (tmp_path / "b.safetensors", None):
        with pytest.raises(InputError, match="takes its means from another file"):
            apply(tiny_model("pixart"), plan, profile=wrong)


def test_a_broken_check_lets_a_wrong_graph_run(run, monkeypatch):
    """The saboteur: without sizes in the key, and without checks, DiT would run the graph of another size."""
    model = build_tiny_model("dit")
    variant = apply(model, IDENTITY)
    graphs = forward_of_variant(variant).graphs
    ((key, only),) = graphs.by_key.items()
    broken = dict(only.forward.__globals__.items())
    broken["surgery_tracing_guards_expect"] = lambda *_: None
    monkeypatch.setattr("surgery.graph.rewritten_forward.sizes_of_call", lambda _: ())
    exec(forward_of_variant(variant).first_source, broken)
    graphs.by_key = {(key[0], ()): HeldGraph(broken["forward"], only.config)}
    call = tiny_call(model, height=12, width=12)
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        run(variant, call)
