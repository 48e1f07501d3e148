"""A copy shares memory and ties with the original, and nothing else."""

import functools

import pytest
import torch
from torch import nn

from surgery.testing import TINY_MODELS, build_tiny_model, tiny_call
from surgery.tracing.clone import bare_clone, clone_module, share_tensor, without_memory


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.again = self.head
        self.register_buffer("shift", torch.ones(5))
        self.register_buffer("kept_out", torch.zeros(1), persistent=False)
        self.register_parameter("nothing", None)

    def forward(self, ids):
        return self.again(self.embed(ids)) + self.shift


IDS = torch.tensor([[0, 1, 4]])


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_clone_computes_the_same_in_the_same_memory(name):
    model = build_tiny_model(name)
    twin = clone_module(model)
    call = tiny_call(model)
    with torch.no_grad():
        assert torch.equal(twin(**call).sample, model(**call).sample)
    pairs = zip(model.state_dict().items(), twin.state_dict().items(), strict=True)
    assert all(a == b and x.data_ptr() == y.data_ptr() for (a, x), (b, y) in pairs)


def test_ties_are_kept():
    twin = clone_module(Tied())
    assert twin.head.weight is twin.embed.weight
    assert twin.again is twin.head
    assert len(list(twin.parameters())) == 1


def test_no_tensor_or_module_object_is_shared():
    original = Tied()
    twin = clone_module(original)
    ours = {id(item) for item in [*original.modules(), *original.parameters(), *original.buffers()]}
    theirs = {id(item) for item in [*twin.modules(), *twin.parameters(), *twin.buffers()]}
    assert ours.isdisjoint(theirs)


def test_state_of_a_clone_has_the_same_names():
    original = Tied()
    twin = clone_module(original)
    assert list(twin.state_dict()) == list(original.state_dict())
    assert "kept_out" not in twin.state_dict()
    assert twin.nothing is None


def test_moving_and_casting_a_clone_leaves_the_original():
    original = Tied()
    before = original.embed.weight.detach().clone()
    twin = clone_module(original).to(torch.float64)
    twin.embed.weight.data.zero_()
    twin.shift = torch.zeros(5)
    assert original.embed.weight.dtype == torch.float32
    assert torch.equal(original.embed.weight, before)
    assert torch.equal(original.shift, torch.ones(5))


def test_removing_a_child_of_a_clone_leaves_the_original():
    original = Tied()
    twin = clone_module(original)
    del twin.head
    assert "head" in original._modules


def test_gradients_of_a_clone_are_its_own():
    original = Tied()
    original.embed.weight.requires_grad_(False)
    twin = clone_module(original)
    assert not twin.embed.weight.requires_grad
    twin.embed.weight.requires_grad_(True)
    twin(IDS).sum().backward()
    assert original.embed.weight.grad is None


def test_hooks_are_independent():
    original = Tied()
    calls = []
    kept = original.register_forward_hook(lambda *_: calls.append("before"))
    twin = clone_module(original)
    twin.register_forward_hook(lambda *_: calls.append("twin"))
    original.register_forward_hook(lambda *_: calls.append("original"))
    twin(IDS)
    assert calls == ["before", "twin"]
    kept.remove()
    calls.clear()
    twin(IDS)
    original(IDS)
    assert calls == ["before", "twin", "original"]


def test_registries_and_lists_that_are_empty_are_independent_too():
    original = Tied()
    original.told = []
    twin = clone_module(original)
    twin.told.append(1)
    twin.register_forward_pre_hook(lambda *_: 1 / 0)
    twin.register_buffer("late", torch.ones(1), persistent=False)
    assert original.told == [] and list(original.state_dict()) == list(Tied().state_dict())
    original(IDS)


def test_functions_bound_to_a_module_are_bound_to_its_copy():
    """accelerate puts such a forward on instances."""
    original = Tied()

    def forward(module, ids):
        return module.embed(ids)

    original.forward = functools.partial(forward, original)
    original.own = original.embed.forward
    twin = clone_module(original)
    assert twin.forward.args == (twin,)
    assert twin.own.__self__ is twin.embed


def test_a_bare_clone_has_neither_hooks_nor_own_forwards():
    original = Tied()
    original.register_forward_hook(lambda *_: 1 / 0)
    original.embed.forward = lambda *_: 1 / 0
    original.embed.register_forward_pre_hook(lambda *_: 1 / 0)
    assert torch.equal(bare_clone(original)(IDS), Tied.forward(clone_module(bare_clone(original)), IDS))
    assert len(original._forward_hooks) == len(original.embed._forward_pre_hooks) == 1
    assert "forward" in original.embed.__dict__


def test_without_memory_keeps_shape_and_casts_floats_only():
    numbers = without_memory(torch.arange(3), torch.bfloat16)
    weight = without_memory(nn.Parameter(torch.ones(2, 3), requires_grad=False), torch.bfloat16)
    assert (numbers.dtype, numbers.is_meta) == (torch.int64, True)
    assert (weight.dtype, weight.shape, weight.is_meta) == (torch.bfloat16, (2, 3), True)
    assert isinstance(weight, nn.Parameter) and not weight.requires_grad


def test_tensor_subclasses_are_shared_as_they_are():
    class Quantised(torch.Tensor):
        pass

    value = torch.ones(2).as_subclass(Quantised)
    assert share_tensor(value) is value
