"""Sizes that a forward gives to the factories of torch stay sizes of its call, however they are given."""

import threading

import pytest
import torch
from torch import nn, overrides

from surgery.tracing.factories import FACTORIES, recorded_factories

MAKES_NO_TENSOR_OF_SIZES = {
    "compile",
    "from_file",
    "load",
    "manual_seed",
    "seed",
    "get_default_device",
    "rand_like",
} | {
    *("get_device_module", "randint_like", "randn_like", "set_default_device", "set_default_tensor_type"),
    *("set_float32_matmul_precision", "use_deterministic_algorithms"),
}
CALLS = {
    "sizes": lambda x: torch.ones(x.shape[0], x.shape[1]),
    "tuple": lambda x: torch.zeros((x.shape[0], 3)),
    "list": lambda x: torch.zeros([3, x.shape[1]], dtype=torch.bool),
    "keyword": lambda x: torch.ones(size=(x.shape[0],), device=x.device),
    "numbers": lambda x: torch.tensor([x.shape[0], 2 * x.shape[1]]),
    "number": lambda x: torch.tensor(x.shape[1]),
    "as_tensor": lambda x: torch.as_tensor([[x.shape[0]], [7]]),
    "arange": lambda x: torch.arange(1, x.shape[1], 2),
    "full": lambda x: torch.full((x.shape[0], 2), x.shape[1] / 2),
    "linspace": lambda x: torch.linspace(0, x.shape[0], x.shape[1]),
    "eye": lambda x: torch.eye(x.shape[1], x.shape[0]),
    "empty": lambda x: torch.empty(x.shape[1], x.shape[0]).fill_(2),
    "triu_indices": lambda x: torch.triu_indices(x.shape[0], x.shape[1]),
    "random": lambda x: torch.randn(x.shape[1], x.shape[0]),
    "order": lambda x: torch.randperm(x.shape[1]),
}


class Makes(nn.Module):
    """Makes a tensor of the sizes of its input."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


@pytest.mark.parametrize("call", CALLS)
def test_a_tensor_made_of_traced_sizes_has_the_sizes_of_every_call(trace, execute, call):
    model = Makes(CALLS[call])
    traced = trace(model, torch.zeros(2, 5))
    assert traced.num_decisions == 0
    for shape in ((2, 5), (3, 4), (6, 7)):
        torch.manual_seed(0)
        expected = model(torch.zeros(shape))
        torch.manual_seed(0)
        found = execute(traced, model, torch.zeros(shape))
        assert found.dtype == expected.dtype and torch.equal(found, expected)


def test_every_function_of_torch_that_makes_tensors_of_sizes_is_followed():
    ignored = list(overrides.get_ignored_functions())
    hidden = {name for name in dir(torch) if any(getattr(torch, name) is function for function in ignored)}
    makes = {name for name in hidden if "device" in (getattr(torch, name).__doc__ or "")}
    assert makes - MAKES_NO_TENSOR_OF_SIZES <= set(FACTORIES)


def test_factories_are_as_they_were_after_a_trace(trace):
    before = {name: getattr(torch, name) for name in FACTORIES}
    trace(Makes(CALLS["sizes"]), torch.zeros(2, 5))
    with pytest.raises(ZeroDivisionError), recorded_factories(lambda factory, args, kwargs: 1 / 0):
        torch.ones(2)
    assert {name: getattr(torch, name) for name in FACTORIES} == before


def test_other_threads_make_tensors_meanwhile(trace):
    made = []

    def call(x):
        thread = threading.Thread(target=lambda: made.append(torch.ones(2, 3)))
        thread.start()
        thread.join()
        return torch.ones(x.shape[0])

    graph = trace(Makes(call), torch.zeros(2, 5)).graph
    assert type(made[0]) is torch.Tensor and made[0].sum() == 6
    assert [node.target for node in graph.nodes].count(torch.ones) == 1
