"""Tracing a model for one call, and running its graph."""

import pytest
import torch

from surgery.graph.rewrite import rewrite_graph
from surgery.plan.schedule import Layer, Schedule
from surgery.tracing.arguments import flatten_call, parameters_of
from surgery.tracing.clone import bare_clone
from surgery.tracing.tracer import TracedForward, trace_forward
from surgery.tracing.wrappers import innermost


@pytest.fixture(scope="session")
def flatten():
    """A call of a model's forward, flattened."""

    def flat(model, *args, **kwargs):
        return flatten_call(args, kwargs, parameters_of(innermost(type(model).forward)))

    return flat


@pytest.fixture(scope="session")
def trace(flatten):
    """The traced forward of a model for one call, without gradients."""

    def traced(model, *args, **kwargs):
        with torch.no_grad():
            return trace_forward(
                lambda: bare_clone(model), flatten(model, *args, **kwargs), innermost(type(model).forward)
            )

    return traced


@pytest.fixture(scope="session")
def execute(flatten):
    """What the Python code of a graph returns for a call."""

    def run(traced, model, *args, **kwargs):
        code = traced.graph.python_code("self")
        namespace = dict(code.globals)
        exec(code.src, namespace)
        with torch.no_grad():
            return namespace["forward"](model, *flatten(model, *args, **kwargs).inputs)

    return run


@pytest.fixture(scope="session")
def edit(trace):
    """The graph of a toy in which its stack runs these layers."""

    def edited(model, layers, *args):
        traced = trace(model, *args)
        schedule = Schedule("blocks", len(model.blocks), tuple(Layer(index) for index in layers))
        return TracedForward(rewrite_graph(traced.graph, traced.model, {"blocks": schedule}), model, 0)

    return edited
