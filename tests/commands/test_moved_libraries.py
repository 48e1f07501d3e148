"""Where torch or diffusers has taken a private name away, commands that stand on it end in one line, others go on."""

import dataclasses

import diffusers.loaders.single_file_utils
import pytest
import torch
from built_once import FORWARD_ONCE, TRACE_ONCE
from safetensors.torch import save_file
from torch import fx

from surgery import diffusers_internals, torch_internals
from surgery.anatomy import from_model
from surgery.commands.doctor import Status, examine_private_names, examine_tested
from surgery.graph.traces import Traces
from surgery.internals import private_names, version_of
from surgery.tested import TESTED


@pytest.fixture(autouse=True)
def _nothing_is_known(tmp_path, monkeypatch):
    """Anatomies that other tests have kept would need no tracing."""
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _every_model_is_traced(monkeypatch):
    """What other tests have read of models like these would hide that they can't be traced."""
    monkeypatch.setattr(from_model, "_stacks_traced", TRACE_ONCE.__wrapped__)
    monkeypatch.setattr(Traces, "trace", FORWARD_ONCE.__wrapped__)


def assert_ends_in_a_message(result, *words):
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if "`surgery doctor`" in line]
    assert all(word in line for word in words), line
    assert "Traceback" not in result.stderr


def test_without_fake_tensors_models_are_checked_and_not_drawn(surgery_command, pipeline, write_spec, monkeypatch):
    monkeypatch.delattr("torch._subclasses.fake_tensor.FakeTensorMode")
    spec = write_spec("skip.yaml", 'skip: "transformer_blocks[1]"')
    assert surgery_command("inspect", pipeline).exit_code == 0
    assert surgery_command("check", spec).exit_code == 0
    drawn = surgery_command("generate", spec, "--prompt", "red apple", "--steps", "1", "--out", pipeline.parent / "out")
    assert_ends_in_a_message(drawn, f"torch {version_of('torch')} has no torch._subclasses.fake_tensor.FakeTensorMode")


@pytest.mark.parametrize("method", ["create_args_for_root", "getattr"])
def test_without_the_methods_of_a_tracer_what_is_known_is_checked(
    surgery_command, pipeline, write_spec, monkeypatch, method
):
    monkeypatch.delattr(fx.Tracer, method)
    for arguments in (("inspect", pipeline), ("check", write_spec("skip.yaml", 'skip: "transformer_blocks[1]"'))):
        assert_ends_in_a_message(surgery_command(*arguments), "has no torch.fx.Tracer.create_args_for_root")
    assert surgery_command("inspect", "demo").exit_code == 0
    assert surgery_command("check", write_spec("demo.yaml", 'skip: "transformer_blocks[1]"', "demo")).exit_code == 0
    assert surgery_command("compile", "--help").exit_code == 0


def test_a_method_of_the_tracer_that_takes_something_else_counts_as_gone(monkeypatch):
    monkeypatch.setattr(fx.Tracer, "create_args_for_root", lambda self, root, concrete_args=None: None)
    assert [name.name for name in private_names() if name.failure] == [torch_internals.TRACER.name]


def test_without_the_tables_of_single_files_folders_are_read(surgery_command, pipeline, tmp_path, monkeypatch):
    monkeypatch.delattr(diffusers.loaders.single_file_utils, "infer_diffusers_model_type")
    save_file({"joint_blocks.0.x": torch.ones(1)}, tmp_path / "original.safetensors")
    result = surgery_command("inspect", tmp_path / "original.safetensors")
    assert_ends_in_a_message(result, "diffusers ", "infer_diffusers_model_type", "a diffusers folder, will do")
    assert surgery_command("inspect", pipeline).exit_code == 0


@pytest.mark.parametrize("name", private_names(), ids=lambda name: name.name)
def test_doctor_names_what_is_missing_and_what_stops(name, monkeypatch):
    home = torch_internals if name.library == "torch" else diffusers_internals
    attribute = next(attribute for attribute, value in vars(home).items() if value is name)
    monkeypatch.setattr(home, attribute, dataclasses.replace(name, look_up=lambda: 1 / 0))
    (finding,) = examine_private_names()
    assert finding.status is (Status.note if name.is_optional else Status.fault)
    assert finding.text.startswith(f"{name.library} {version_of(name.library)} has no {name.name}, which it takes to ")
    assert finding.text.endswith(f"{name.purpose} (division by zero); it was there from {name.since} on")
    assert finding.advice == f"{name.library} {' to '.join(TESTED[name.library])} are known to work"


def test_doctor_explains_a_model_that_can_not_be_traced_any_more(surgery_command, pipeline, monkeypatch):
    monkeypatch.delattr(fx.Tracer, "getattr")
    result = surgery_command("doctor", pipeline)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    faults = [line for line in result.stdout.splitlines() if line.startswith("fault")]
    assert [line.split()[1] for line in faults] == ["torch", str(pipeline)]
    assert all("torch.fx.Tracer.create_args_for_root and getattr" in line for line in faults)


def test_doctor_says_that_all_are_there(surgery_command):
    (line,) = [line for line in surgery_command("doctor").stdout.splitlines() if "private names" in line]
    assert (
        line.split()
        == f"ok private names all {len(private_names())} that are used of torch and diffusers are there".split()
    )


def test_versions_out_of_the_tested_range_are_noted_with_the_range(monkeypatch):
    monkeypatch.setitem(TESTED, "torch", ("1.2", "1.3.1"))
    monkeypatch.setitem(TESTED, "diffusers", ("0.1", "99"))
    (finding,) = examine_tested()
    assert (finding.status, finding.subject) == (Status.note, "torch")
    assert finding.text == f"{version_of('torch')} is untested"
    assert finding.advice == "tested with torch 1.2 to 1.3.1, diffusers 0.1 to 99"
