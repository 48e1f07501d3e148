"""Gates that are logged: read from the model as it is at each measure, beside the numbers of the measure."""

import pytest
import torch

from surgery.dit import read_gates
from surgery.dit.tiny_pipelines import tiny_dit
from surgery.training.dit.logged_gates import LoggedGates, course_of_gates, middles_of, without_gates
from surgery.training.loop import Measured

MEASURED = {"error": 0.5, "0.25": 0.4, "0.75": 0.6}


def test_every_measure_has_the_gates_of_the_model_as_it_is_then():
    model, logged = tiny_dit("freq_gate"), LoggedGates(lambda _: MEASURED, bins=2, num_train_timesteps=1000)
    before = logged(model)
    low = read_gates(model, [250, 750])
    with torch.no_grad():
        model.transformer_blocks[1].condition.gate.bias.fill_(200.0)
    history = [Measured(0, before), Measured(3, MEASURED), Measured(5, logged(model))]
    first, last = course_of_gates(history, blocks=4, bins=2)
    assert (first["step"], last["step"]) == (0, 5)
    assert first["low"] == pytest.approx(low.numpy(), abs=1e-6)
    assert last["low"][1] == [1, 1] and last["low"][2] == first["low"][2]
    assert without_gates(before) == MEASURED
    assert middles_of(2) == [0.25, 0.75]
