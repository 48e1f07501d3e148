"""Tiny real models and their anatomies, built once a test module."""

import pytest
import torch

from surgery.anatomy.from_model import read_anatomy
from surgery.plan.lower import lower_spec
from surgery.spec.load import read_spec
from surgery.testing import TINY_MODELS, build_tiny_model


@pytest.fixture(scope="module")
def models():
    return {name: build_tiny_model(name) for name in TINY_MODELS}


@pytest.fixture(scope="module")
def anatomies(models):
    return {name: read_anatomy(model) for name, model in models.items()}


@pytest.fixture(scope="session")
def plan_of():
    """The plan of some operations, written as the items of a spec's list."""

    def plan(operations, anatomy, means=None):
        text = "surgery: v1\noperations:\n" + "".join(f"  - {operation}\n" for operation in operations)
        return lower_spec(read_spec(text if operations else "surgery: v1\noperations: []"), anatomy, means)

    return plan


@pytest.fixture(scope="session")
def run():
    """The output tensor of a model without gradients."""

    def call(model, kwargs):
        with torch.no_grad():
            return model(**kwargs).sample

    return call
