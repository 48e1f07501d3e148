"""The time of a step: of the transformer alone, beside the baseline's, whatever else the machine does."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pipelines
import torch
from swept_evaluations import ERROR, document_of, variant
from typer.testing import CliRunner

from surgery.commands.main import app
from surgery.experiment import latency
from surgery.experiment.latency import ROUNDS, measure_latencies
from surgery.experiment.timed_forwards import timed_forwards
from surgery.graph.apply import apply
from surgery.report.cost_figures import costs_of, priced_rows
from surgery.report.evaluated import measured_from_json
from surgery.spec.load import read_spec


def block_clock(pipe):
    """A clock that ticks with each run of a block, and by 1,000 outside the transformer."""
    ticks = [0.0]

    def tick(*_):
        ticks[0] += 1

    for block in pipe.transformer.transformer_blocks:
        block.register_forward_hook(tick)
    decode = pipe.vae.decode
    pipe.vae.decode = lambda *args, **kwargs: (ticks.__setitem__(0, ticks[0] + 1_000), decode(*args, **kwargs))[1]
    return lambda: ticks[0]


def test_the_time_is_that_of_the_blocks_that_ran_in_windows_too():
    """By a clock that ticks with each block: one is left out, or one in half of the steps; the decoder is not timed."""
    pipe, call = pipelines.build_pipeline("sd3")
    num, steps = len(pipe.transformer.transformer_blocks), 4
    call = {**call, "num_inference_steps": steps}
    clock = block_clock(pipe)
    skip = 'skip: "transformer_blocks[1]"'
    specs = {"skip": f"[{{{skip}}}]", "early": f'[{{{skip}, when: {{steps: "0:2"}}}}]', "none": "[]"}
    pipes = {
        name: apply(pipe, read_spec(f"surgery: v1\noperations: {operations}")) for name, operations in specs.items()
    }
    told = []
    found = measure_latencies(
        {"baseline": pipe, **pipes}, pipe, "a dog", seed=0, call=call, rounds=3, clock=clock, on_round=told.append
    )
    forwards = found["baseline"].seconds[0] / num  # of a step: both branches in one, or one each
    assert forwards in (1, 2) and told == [name for name in found for _ in range(3)]
    mean = {name: one.seconds / forwards for name, one in found.items()}
    assert np.array_equal(mean["none"], [num] * 3)
    assert np.array_equal(mean["skip"], [num - 1] * 3)
    assert np.array_equal(mean["early"], [num - 0.5] * 3)
    assert all(np.array_equal(one.baseline / forwards, [num] * 3) for one in found.values())


def test_a_machine_that_slows_down_slows_both():
    """By a clock that runs faster and faster, the time of the same model is that of the baseline's pairs."""
    pipe, call = pipelines.build_pipeline("sd3")
    unchanged = apply(pipe, read_spec("surgery: v1\noperations: []"))
    ticks = itertools.count()
    found = measure_latencies(
        {"none": unchanged}, pipe, "a dog", seed=0, call=call, rounds=ROUNDS, clock=lambda: 1.1 ** next(ticks)
    )["none"]
    ratios = found.seconds / found.baseline
    assert (ratios > 1).any() and (ratios < 1).any(), "neither always comes second"
    assert found.seconds[-1] > 2 * found.seconds[0], "the machine did slow down"


def test_time_and_memory_are_those_of_the_models_own_gpu(monkeypatch):
    """Of two GPUs, where the other is the current one: what is waited for, and what is held and taken at most."""
    device, told = torch.device("cuda", 1), []
    cuda = {
        "synchronize": lambda device=0: told.append(device),
        "memory_allocated": lambda device=0: {device: 5}[device],
        "reset_peak_memory_stats": lambda device=0: told.append(device),
        "max_memory_allocated": lambda device=0: {told[-1]: 12}[device],
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(latency._Sampling, "run", lambda self: told.append(device))
    pipe = SimpleNamespace(transformer=SimpleNamespace(device=device))
    assert latency._Sampling(pipe, "", 0, {}, None).peak_bytes() == 7
    module, seconds, ticks = torch.nn.Identity(), [], itertools.count()
    with timed_forwards([(module, seconds)], device, lambda: next(ticks)):
        module(torch.zeros(1))
    assert seconds == [1] and told == [device] * 4 and not (module._forward_hooks or module._forward_pre_hooks)


def test_an_evaluation_times_all_models_and_no_control_without_one(tmp_path):
    spec = tmp_path / "skip.yaml"
    spec.write_text('surgery: v1\nmodel: demo\noperations: [{skip: "transformer_blocks[2:6]"}]\n')
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("red apple\nrocket\n")
    arguments = ["evaluate", str(spec), "--prompts", str(prompts), "--out", str(tmp_path / "out"), "--steps", "2"]
    arguments += ["--extractor", "none", "--clip", "none", "--lpips", "none", "--bins", "1", "--latency", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--stages", "error:2"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    scores = {
        row["name"]: score
        for row in document["rows"]
        for name, score in row["scores"].items()
        if name.startswith("latency of a step (% of the baseline's, CPU, ")
    }
    assert set(scores) == {"baseline", "skip", "no-op"}
    assert scores["baseline"]["value"] == 100 and scores["skip"]["num"] == ROUNDS
    assert scores["skip"]["low"] <= scores["skip"]["value"] <= scores["skip"]["high"]
    assert any("a step of the baseline's transformer takes" in note for note in document["notes"])
    assert all("mark" not in score for score in scores.values())
    measured = measured_from_json(document)
    points = priced_rows(measured, measured.metric(ERROR), costs_of(measured)["measured latency"])
    assert {point.name: point.ends is None for point in points} == {"baseline": True, "skip": False}


def test_what_was_not_timed_has_no_latency():
    measured = measured_from_json(document_of([variant("a", "a", {}, {ERROR: (0.5, 0.1)})]))
    assert "measured latency" not in costs_of(measured)
