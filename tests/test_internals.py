"""Private names of torch and diffusers: what is gone stops what stands on it, with a message, and nothing else."""

import inspect
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from torch import nn
from torch.overrides import TorchFunctionMode

from surgery import diffusers_internals, torch_internals
from surgery.calls.example_inputs import example_call
from surgery.errors import InternalsError
from surgery.graph.apply import apply
from surgery.graph.program import export_program
from surgery.internals import private_names
from surgery.spec.load import read_spec
from surgery.tested import TESTED, is_tested
from surgery.testing import build_tiny_model, tiny_call
from surgery.tracing.arguments import flatten_call
from surgery.tracing.clone import bare_clone, without_memory
from surgery.tracing.tracer import trace_forward
from surgery.tracing.wrappers import innermost

SKIP = read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[1]"}]')
USES = {  # what stands on each name alone
    "FAKE_TENSORS": lambda: torch_internals.fake_tensors().__enter__(),
    "TRACER": torch_internals.CallTracer,
    "HOOKS": lambda: torch_internals.has_forward_hooks(nn.Module()),
    "VERSION": lambda: torch_internals.times_changed(torch.zeros(1)),
    "CHILDREN": lambda: torch_internals.twin_with_own_children(nn.Module()),
    "CHECKPOINTING": lambda: diffusers_internals.set_checkpointing_function_(nn.Module(), print),
    "MODEL_INFERENCE": lambda: diffusers_internals.infer_hub_id({}),
    "CONVERTERS": lambda: diffusers_internals.find_converter("FluxTransformer2DModel"),
}


@pytest.fixture
def take_away(monkeypatch):
    """Makes the look-up of a private name fail, as where a library has moved."""

    def fail():
        raise ImportError("cannot import name")

    def take(attribute):
        home = torch_internals if hasattr(torch_internals, attribute) else diffusers_internals
        name = replace(getattr(home, attribute), look_up=fail)
        monkeypatch.setattr(home, attribute, name)
        return name

    return take


@pytest.mark.parametrize("name", private_names(), ids=lambda name: name.name)
def test_every_private_name_is_there(name):
    """In every environment that the tests run in."""
    assert name.failure is None


@pytest.mark.parametrize("attribute", USES)
def test_what_stands_on_a_name_that_is_gone_says_so(take_away, attribute):
    name = take_away(attribute)
    with pytest.raises(InternalsError) as raised:
        USES[attribute]()
    (line,) = str(raised.value).splitlines()
    assert line == f"{name.absence}; `surgery doctor` says which versions have it"
    assert name.absence.startswith(f"{name.library} ") and name.name in line and name.purpose in line


def test_only_optional_names_have_no_use_that_stops():
    optional = [name for name in private_names() if name.is_optional]
    assert len(USES) == len(private_names()) - len(optional)


def test_without_its_guards_every_size_of_a_program_is_fixed(take_away):
    program = SimpleNamespace(_guards_code=[])
    assert torch_internals.export_guards(program) == []
    take_away("EXPORT_GUARDS")
    assert torch_internals.export_guards(program) == ["False"]


def test_a_pipeline_without_a_packing_of_its_own_packs_nothing():
    assert list(diffusers_internals.packings_by_pipeline(object(), torch.ones(1, 2, 4, 4))) == []


def test_gradient_checkpointing_alone_stops_where_its_function_is_kept_elsewhere(take_away):
    variant = apply(build_tiny_model("pixart"), SKIP)
    take_away("CHECKPOINTING")
    variant(**tiny_call(variant)).sample.mean().backward()
    variant.enable_gradient_checkpointing()
    with pytest.raises(InternalsError, match="_gradient_checkpointing_func, which it takes to run variants with"):
        variant.train()(**tiny_call(variant))


@pytest.mark.parametrize("attribute", ["FAKE_TENSORS", "TRACER", "HOOKS"])
def test_a_variant_that_was_traced_runs_on(take_away, attribute):
    variant = apply(build_tiny_model("pixart"), SKIP)
    call = tiny_call(variant)
    with torch.no_grad():
        expected = variant(**call).sample
        take_away(attribute)
        assert torch.equal(variant(**call).sample, expected)
    with pytest.raises(InternalsError, match="which it takes to trace"):
        apply(build_tiny_model("pixart"), SKIP)


class Reads(nn.Module):
    """A forward that can't be traced whole."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])

    def forward(self, hidden_states):
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states if float(hidden_states.sum()) > 0 else -hidden_states


def test_variants_that_are_traced_in_part_stop_where_children_are_kept_elsewhere(take_away):
    """That is said as it is, and not as a fault of the model's forward."""
    spec = read_spec('surgery: v1\noperations: [{skip: "blocks[1]"}]')
    take_away("CHILDREN")
    variant = apply(Reads().eval(), spec)
    with torch.no_grad(), pytest.raises(InternalsError, match="run variants whose forward can't be traced whole"):
        variant(torch.ones(1, 2))
    whole = apply(build_tiny_model("pixart"), SKIP)
    assert whole(**tiny_call(whole)).sample.isfinite().all()


class Notes(TorchFunctionMode):
    """Notes which functions of torch are called."""

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.called.append(func)
        return func(*args, **(kwargs or {}))


def test_a_mode_is_not_asked_where_it_is_the_innermost(take_away):
    with Notes() as notes:
        with suppress(ZeroDivisionError), torch_internals.without_mode(notes):
            torch.ones(1)
            raise ZeroDivisionError
        assert notes.called == []
        with torch.device("meta"), torch_internals.without_mode(notes):
            assert torch.ones(1).is_meta
        assert torch.ones in notes.called
        take_away("CURRENT_MODE")
        notes.called.clear()
        with torch_internals.without_mode(notes):
            torch.ones(1)
        assert notes.called == [torch.ones]


def test_an_export_does_not_take_it_for_a_refusal(take_away):
    variant = apply(build_tiny_model("pixart"), SKIP)
    take_away("FAKE_TENSORS")
    with pytest.raises(InternalsError, match="FakeTensorMode"):
        export_program(variant)


def test_a_trace_does_not_take_it_for_a_fault_of_the_forward(take_away):
    model = bare_clone(build_tiny_model("pixart"), without_memory)
    forward = innermost(type(model).forward)
    call = flatten_call((), example_call(model).kwargs, list(inspect.signature(forward).parameters)[1:])
    take_away("HOOKS")
    with torch.no_grad(), pytest.raises(InternalsError, match="_forward_hooks and its kind"):
        trace_forward(lambda: model, call, forward)


def test_the_oldest_tested_versions_are_the_lower_bounds():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    asked = {item.name: str(item.specifier) for item in map(Requirement, project["dependencies"])}
    assert {library: f">={oldest}" for library, (oldest, _) in TESTED.items()} == {name: asked[name] for name in TESTED}


def test_builds_and_pre_releases_of_a_tested_version_are_tested(monkeypatch):
    monkeypatch.setitem(TESTED, "torch", ("2.11", "2.14.1"))
    inside = ("2.11.0", "2.11", "2.13.0+cpu", "2.14.1+cu130", "2.14.1rc1")
    outside = ("2.10.1", "2.14.2", "2.15.0", "2.15.0.dev20260101+cpu", "3.0")
    assert all(is_tested("torch", version) for version in inside)
    assert not any(is_tested("torch", version) for version in outside)
