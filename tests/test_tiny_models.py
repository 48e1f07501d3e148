"""`surgery.testing`, as users call it: what it does not have is told."""

import pytest
from torch import nn

from surgery.errors import InputError
from surgery.testing import build_tiny_model, tiny_call


def test_a_tiny_model_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(InputError, match="there is no tiny model fluks; there are pixart, sd3, sd3-dual, flux, "):
        build_tiny_model("fluks")


def test_a_class_without_example_inputs_is_told():
    with pytest.raises(InputError, match="there are no example inputs for Linear; build the arguments"):
        tiny_call(nn.Linear(2, 2))
