"""A graph does what the forward did, to the bit, and says so where it can't."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask

from surgery.errors import TraceError
from surgery.testing import TINY_MODELS, build_tiny_model, tiny_call
from surgery.tracing.guards import GuardViolation, expect
from surgery.tracing.tracer import trace_forward
from surgery.tracing.values import ValueProxy

HERE = Path(__file__).name
X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1))


@dataclasses.dataclass
class Output:
    sample: torch.Tensor
    note: torch.Tensor | None = None


class AddsInPlace(nn.Module):
    def forward(self, x):
        y = x * 2
        y.add_(1)
        return y * y


class AssignsItem(nn.Module):
    def forward(self, x):
        y = x * 2
        y[:, 0] = y[:, 1] + 1
        return y + 1


class Changes(nn.Module):
    """Something is done to a tensor, and what that returns is not used."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        x = x + 1
        self.change(x)
        return x


class ChangesItsArgument(nn.Module):
    def forward(self, x):
        x.mul_(2)
        return x + 1


class ChangesWhatAnotherSees(nn.Module):
    def forward(self, x):
        y = x * 2
        view = y[:, 0]
        y.add_(1)
        return y.sum() + view.sum()


class AssignsWhatAnotherSees(nn.Module):
    def forward(self, x):
        y = x * 2
        view = y.reshape(-1)
        y[0] = 0
        return y.sum() + view.sum()


class MakesTensors(nn.Module):
    def forward(self, x):
        ramp = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
        fixed = torch.linspace(0, 1, 4, dtype=x.dtype)
        return x + ramp[None, :, None] + torch.zeros(4, dtype=x.dtype) + fixed


class ReshapesBySize(nn.Module):
    def forward(self, x):
        batch, tokens, channels = x.shape
        return x.reshape(batch * tokens, channels).view(batch, tokens, channels).transpose(1, 2).flatten(1)


class DecidesOnSize(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] > 2 else x * 3


class DecidesByLoop(nn.Module):
    def forward(self, x):
        total = x[:, 0]
        for index in range(1, x.shape[1]):
            total = total + index * x[:, index]
        return total


class AsksWhatItIsGiven(nn.Module):
    def forward(self, x):
        assert isinstance(x, torch.Tensor)
        scale = 2.0 if x.ndim == 3 else 5.0
        return (x * scale).to(torch.float64) if x.dtype is torch.float32 else x * scale


class TakesAnything(nn.Module):
    def forward(self, xs, options, marker=None, scale=1.0, mode="sum", missing=None):
        assert missing is None
        total = xs[0] + xs[1] * scale
        if mode == "sum" and "bias" in options:
            total = total + options["bias"]
        return total if marker is None else total + marker.amount


class ReturnsNothingSomewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = ReturnsPair()

    def forward(self, x):
        text, image = self.part(x)
        return (image, text) if text is not None else (image + 1, None)


class ReturnsPair(nn.Module):
    def forward(self, x):
        return None, x * 2


class ReturnsOutput(nn.Module):
    def forward(self, x, return_dict=True):
        return Output(sample=x * 2) if return_dict else (x * 2,)


class OwnsTensors(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((4,), 3.0))
        self.register_buffer("shift", torch.ones(4))

    def forward(self, x):
        return x * self.scale + self.shift


class DecidesOnContents(nn.Module):
    def forward(self, x):
        y = x * 2
        if y.sum() > 0:  # the line that is to be named
            return y
        return -y


TOYS = (AddsInPlace, AssignsItem, MakesTensors, ReshapesBySize, OwnsTensors, AsksWhatItIsGiven, DecidesOnSize)


def num_expects(traced):
    return sum(node.target is expect for node in traced.graph.nodes)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_graph_is_bit_identical_to_the_forward(trace, execute, name):
    model = build_tiny_model(name)
    call = tiny_call(model)
    traced = trace(model, **call)
    with torch.no_grad():
        expected = model(**call).sample
    assert torch.equal(execute(traced, model, **call).sample, expected)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_submodules_are_leaves_and_inputs_keep_their_names(trace, name):
    model = build_tiny_model(name)
    traced = trace(model, **tiny_call(model))
    called = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    placeholders = [node.target for node in traced.graph.nodes if node.op == "placeholder"]
    assert called <= {child for child, _ in model.named_modules()}
    assert "hidden_states" in placeholders
    assert traced.num_decisions <= num_expects(traced)  # the length of a chunk is checked, and no decision


@pytest.mark.parametrize("name", sorted(set(TINY_MODELS) - {"dit"}))
def test_shapes_stay_symbolic(trace, execute, name):
    """A graph of one size runs at another, and gives what the model gives there."""
    model = build_tiny_model(name)
    traced = trace(model, **tiny_call(model))
    other = tiny_call(model, batch=3, text=5, image=15)
    with torch.no_grad():
        assert torch.equal(execute(traced, model, **other).sample, model(**other).sample)


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_graph_is_bit_identical_to_its_forward(trace, execute, toy):
    model = toy()
    before = X.clone()
    assert torch.equal(execute(trace(model, X), model, X), model(X))
    assert torch.equal(X, before)


@pytest.mark.parametrize("toy", [AddsInPlace, AssignsItem, MakesTensors, ReshapesBySize, OwnsTensors])
def test_a_toy_graph_serves_other_sizes(trace, execute, toy):
    model = toy()
    traced = trace(model, X)
    assert traced.num_decisions == 0
    assert torch.equal(execute(traced, model, OTHER), model(OTHER))


def test_tracing_runs_nothing_and_changes_nothing(trace):
    model, x = ChangesItsArgument(), X.clone()
    trace(model, x)
    assert torch.equal(x, X)


@pytest.mark.parametrize("toy", [ChangesWhatAnotherSees, AssignsWhatAnotherSees])
def test_in_place_changes_that_another_value_sees_are_refused(trace, toy):
    with pytest.raises(TraceError, match=rf"{toy.__name__} can't be traced: .*in place while .* same memory"):
        trace(toy(), X)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("relu_", torch.relu_),
        ("relu", lambda x: functional.relu(x, True)),
        ("silu", lambda x: functional.silu(x, inplace=True)),
        ("add", lambda x: torch.add(1, x, out=x)),
    ],
)
def test_in_place_functions_are_refused(trace, name, change):
    with pytest.raises(
        TraceError, match=f"it changes a tensor in place by the function {name}, which a graph can't follow"
    ):
        trace(Changes(change), X)


def make_mask(x):
    length = x.shape[1]
    return create_block_mask(lambda _row, _head, query, key: query >= key, None, None, length, length, device=x.device)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    SCRIPTED = torch.jit.trace(torch.sin, torch.ones(1))


class Doubles(torch.autograd.Function):
    """Its gradient is its own."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 7


class Halves(Doubles):
    """Its forward is decorated as any other code may be."""

    @staticmethod
    @torch.no_grad()
    def forward(ctx, x):
        return x / 2


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (make_mask, "incompatible function arguments"),
        (torch.vmap(torch.sin), "incompatible function arguments"),
        (torch.func.grad(torch.sum), "incompatible function arguments"),
        (lambda x: torch.func.vjp(torch.sin, x), "incompatible function arguments"),
        (SCRIPTED, "Expected a value of type 'Tensor'"),
        (lambda x: x.as_subclass(nn.Parameter), "must be Tensor"),
        (Doubles.apply, "calls the autograd function Doubles, whose own gradient"),
        (Halves.apply, "calls the autograd function Halves, whose own gradient"),
        (lambda x: torch.vmap(abs)(x) if isinstance(x, torch.Tensor) else x, "incompatible function arguments"),
        (lambda x: SCRIPTED(x) if isinstance(x, torch.Tensor) else x, "Expected a value of type 'Tensor'"),
    ],
    ids=[
        *("mask of flex_attention", "vmap", "grad", "vjp", "TorchScript", "subclass"),
        *("autograd function", "decorated one", "vmap in a line with a question", "TorchScript in such a line"),
    ],
)
def test_no_proxy_is_read_as_a_tensor_by_what_is_not_dispatched(trace, call, reason):
    """C++ that took the memory behind a proxy for that of a tensor brought the process down, or did so later."""
    for _ in range(20):  # Python calls otherwise what it has called before
        with pytest.raises(TraceError, match=rf"Changes can't be traced: .*{reason}"):
            trace(Changes(call), X)


class DecoratedAlike(nn.Module):
    """A part of the forward has the decorator of an autograd function."""

    @torch.no_grad()
    def positions(self, x):
        return x.cos()

    def forward(self, x):
        return x + self.positions(x)


def test_a_decorator_that_an_autograd_function_has_too_is_no_reason(trace, execute):
    model = DecoratedAlike()
    assert torch.equal(execute(trace(model, X), model, OTHER), model(OTHER))


class AsksInManyWays(nn.Module):
    """All ways in which Python asks for a class take a proxy for a tensor."""

    def forward(self, x):
        x = x + 1
        match x:
            case torch.Tensor():
                x = x + 1
        if (
            isinstance(
                x,
                torch.Tensor,
            )
            and issubclass(x.__class__, torch.Tensor)
            and all(isinstance(value, torch.Tensor) for value in [x, x])
        ):
            x = x * 2
        return x * 3 if torch.is_tensor(x) and not isinstance(x, (nn.Parameter, Sequence)) else x


def test_whoever_asks_in_python_is_told_that_it_is_a_tensor(trace, execute):
    model = AsksInManyWays()
    assert torch.equal(execute(trace(model, X), model, OTHER), (OTHER + 1 + 1) * 2 * 3)


class TransformsWithin(nn.Module):
    """A submodule that uses a transform."""

    def forward(self, x):
        return torch.vmap(torch.sin)(x)


def test_a_submodule_may_use_transforms(trace, execute):
    model = nn.Sequential(TransformsWithin(), nn.ReLU())
    assert torch.equal(execute(trace(model, X), model, OTHER), model(OTHER))


def test_functionalised_in_place_changes_leave_the_argument(trace, execute):
    model, x = ChangesItsArgument(), X.clone()
    result = execute(trace(model, X), model, x)
    assert torch.equal(result, X * 2 + 1)
    assert torch.equal(x, X)


def test_factories_are_recorded(trace):
    traced = trace(MakesTensors(), X)
    recorded = {node.target for node in traced.graph.nodes if node.op == "call_function"}
    assert {torch.arange, torch.zeros, torch.linspace} <= recorded


@pytest.mark.parametrize("toy", [DecidesOnSize, DecidesByLoop])
def test_ints_that_decide_are_expected(trace, execute, toy):
    model = toy()
    traced = trace(model, X)
    assert traced.num_decisions == num_expects(traced) >= 1
    assert torch.equal(execute(traced, model, X), model(X))
    with pytest.raises(GuardViolation, match="traced with"):
        execute(traced, model, X[:, :1])


def test_a_size_on_the_same_side_of_a_decision_passes(trace, execute):
    model = DecidesOnSize()
    wider = torch.cat([X, X], dim=1)
    assert torch.equal(execute(trace(model, X), model, wider), model(wider))


def test_dtype_and_rank_are_concrete(trace):
    traced = trace(AsksWhatItIsGiven(), X)
    assert traced.num_decisions == 0
    methods = [node.target for node in traced.graph.nodes if node.op == "call_method"]
    assert methods == ["to"]
    assert not [node for node in traced.graph.nodes if node.target is getattr]


@pytest.mark.parametrize("container", [list, tuple])
def test_lists_dicts_and_opaque_objects_are_arguments(trace, execute, container):
    @dataclasses.dataclass(eq=False)
    class Marker:
        amount: float

    model = TakesAnything()
    call = {"xs": container([X, X + 1]), "options": {"bias": X * 3}, "marker": Marker(0.5), "scale": 0.25}
    traced = trace(model, **call)
    assert torch.equal(execute(traced, model, **call), model(**call))
    other = {**call, "scale": 4.0, "options": {"bias": X}}
    assert torch.equal(execute(traced, model, **other), model(**other))


def test_none_results_stay_none(trace, execute):
    model = ReturnsNothingSomewhere()
    image, text = execute(trace(model, X), model, X)
    assert text is None
    assert torch.equal(image, X * 2 + 1)


def test_dataclass_outputs_are_built_by_the_graph(trace, execute):
    model = ReturnsOutput()
    result = execute(trace(model, X), model, X)
    assert isinstance(result, Output)
    assert result.note is None
    assert torch.equal(result.sample, X * 2)
    assert torch.equal(execute(trace(model, X, return_dict=False), model, X, return_dict=False)[0], X * 2)


def test_a_trace_error_names_file_and_line(trace):
    lines = Path(__file__).read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.endswith("# the line that is to be named"))
    with pytest.raises(TraceError, match=rf"DecidesOnContents can't be traced: .*{HERE}:{number}: `if y.sum\(\) > 0:"):
        trace(DecidesOnContents(), X)


def test_an_error_of_the_forward_itself_is_a_trace_error(trace):
    class Broken(nn.Module):
        def forward(self, x):
            return x @ x

    with pytest.raises(TraceError, match=rf"Broken can't be traced: .*{HERE}:\d+: `return x @ x`"):
        trace(Broken(), X)


def test_weights_on_the_meta_device_are_traced_without_memory(trace):
    model = build_tiny_model("pixart").to("meta")
    traced = trace(model, **tiny_call(model))
    values = [node.meta["value"] for node in traced.graph.nodes if "value" in node.meta]
    assert all(value.is_meta for value in values if isinstance(value, torch.Tensor))


def test_a_tracer_that_forgets_the_copy_is_caught(monkeypatch, trace, execute):
    """The saboteur: without the copy, the argument would change."""

    def changed_copy(tensor, method, *args):
        return getattr(tensor, method)(*args)

    monkeypatch.setattr("surgery.tracing.tracer.changed_copy", changed_copy)
    model, x = ChangesItsArgument(), X.clone()
    execute(trace(model, X), model, x)
    assert not torch.equal(x, X)


def test_expect_passes_what_was_decided_and_refuses_the_rest():
    expect(3, 3)
    with pytest.raises(GuardViolation, match="traced with 3, called with 4"):
        expect(4, 3)


def test_proxies_pass_for_what_they_stand_for(flatten):
    seen = []

    class Looks(nn.Module):
        def forward(self, x, scale):
            seen.extend([isinstance(x, torch.Tensor), isinstance(scale, float), type(x) is ValueProxy, len(x)])
            return x * scale

    model = Looks()
    trace_forward(lambda: model, flatten(model, X, 2.0), Looks.forward)
    assert seen == [True, True, True, 2]


def test_two_traces_are_independent(trace, execute):
    model, values = DecidesByLoop(), (X, X[:, :2])
    graphs = [trace(model, value) for value in values]
    for traced, value in zip(graphs, values, strict=True):
        assert torch.equal(execute(traced, model, value), model(value))
