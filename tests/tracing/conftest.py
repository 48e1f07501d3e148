"""Tracing a model for one call, and running its graph."""

import inspect

import pytest
import torch

from surgery.tracing.arguments import flatten_call
from surgery.tracing.clone import bare_clone
from surgery.tracing.tracer import trace_forward
from surgery.tracing.wrappers import innermost


@pytest.fixture(scope="session")
def flatten():
    """A call of a model's forward, flattened."""

    def flat(model, *args, **kwargs):
        names = list(inspect.signature(innermost(type(model).forward)).parameters)[1:]
        return flatten_call(args, kwargs, names)

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
