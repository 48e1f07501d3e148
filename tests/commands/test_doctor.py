"""`surgery doctor`: what fits together and what does not is found, and a model that can't be traced is explained."""

import importlib.metadata
import json
import sys

import diffusers
import pytest

from surgery.commands.doctor import Status, examine_import, examine_requirements
from surgery.testing import build_tiny_model


@pytest.fixture
def save_config(tmp_path):
    """Writes the config of a model into a folder; returns the folder."""

    def save(model):
        config = {**model.config, "_class_name": type(model).__name__}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return save


def findings_of(result, subject):
    return [" ".join(line.split()) for line in result.stdout.splitlines() if line.split()[1] == subject]


def test_a_healthy_installation_is_said_to_be(surgery_command):
    result = surgery_command("doctor", "demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert {line.split()[0] for line in result.stdout.splitlines()} <= {"ok", "note"}
    assert findings_of(result, "torch")[0].split()[2] == importlib.metadata.version("torch")
    (trace,) = findings_of(result, "trace")
    assert trace.startswith("ok") and "the whole forward" in trace
    (stack,) = findings_of(result, "transformer_blocks")
    assert "12 blocks, streams hidden_states; all operations work, replace on norm1, attn1, norm2, attn2, ff" in stack


def test_json_is_a_list_of_findings(surgery_command):
    found = json.loads(surgery_command("doctor", "--json").stdout)
    assert all(set(finding) == {"status", "subject", "text", "advice"} for finding in found)
    assert "python" in [finding["subject"] for finding in found]


def test_a_version_that_does_not_fit_and_a_missing_library_are_faults(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda _: ["torch>=99", "surgery-nowhere>=2", "peft-nowhere; extra == 'lora'", "gone; extra == 'dev'"],
    )
    torch, missing, optional = list(examine_requirements())[1:]
    assert (torch.status, torch.subject, torch.advice) == (Status.fault, "torch", "pip install 'torch>=99'")
    assert (missing.status, missing.text) == (Status.fault, "is not installed")
    assert missing.advice == "pip install 'surgery-nowhere>=2'"
    assert (optional.status, optional.advice) == (Status.note, "pip install 'layer-surgery[lora]'")


def test_a_library_that_can_not_be_imported_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "broken_build.py").write_text("raise OSError('undefined symbol: f\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = examine_import("broken_build")
    assert (finding.status, finding.text) == (Status.fault, "can't be imported: undefined symbol: f")
    assert list(examine_import("json")) == []
    assert "broken_build" not in sys.modules


def test_a_fault_is_exit_status_one(surgery_command, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["torch>=99"])
    result = surgery_command("doctor")
    assert result.exit_code == 1
    assert next(line for line in result.stdout.splitlines() if line.startswith("fault")).split()[1] == "torch"


def test_a_model_that_is_not_there_is_a_fault(surgery_command):
    result = surgery_command("doctor", "/nowhere/at/all")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("fault  /nowhere/at/all")
    assert "there is no folder /nowhere/at/all" in result.stdout


def test_a_forward_that_can_not_be_traced_whole_is_named_with_its_line(surgery_command, save_config, monkeypatch):
    from surgery.anatomy import from_model
    from surgery.errors import TraceError

    def fail(*_):
        raise TraceError("PixArtTransformer2DModel can't be traced: pixart.py:3: `x.tolist()`: data-dependent")

    monkeypatch.setattr(from_model, "trace_forward", fail)
    result = surgery_command("doctor", save_config(build_tiny_model("pixart")))
    assert result.exit_code == 0
    (trace,) = findings_of(result, "trace")
    assert trace.startswith("note") and "pixart.py:3: `x.tolist()`: data-dependent; it is traced again" in trace
    assert "is known when it first runs" in findings_of(result, "transformer_blocks")[0]


def test_what_a_forward_decides_on_its_inputs_is_known(surgery_command, save_config):
    """Lumina2 reads the lengths of its texts off a mask."""
    result = surgery_command("doctor", save_config(build_lumina2()))
    assert result.exit_code == 0
    (trace,) = findings_of(result, "trace")
    assert trace.startswith("ok") and "the whole forward" in trace
    assert "replace on" in findings_of(result, "layers")[0]


def build_lumina2():
    return diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        cap_feat_dim=12,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(64, 64, 64),
    )


def test_a_class_without_example_inputs_is_said_to_wait_for_its_first_run(surgery_command, save_config):
    model = diffusers.T5FilmDecoder(
        input_dims=4, targets_length=4, d_model=8, num_layers=2, num_heads=1, d_kv=8, d_ff=8
    )
    result = surgery_command("doctor", save_config(model))
    (trace,) = findings_of(result, "trace")
    assert trace.startswith("note") and "there are no example inputs for T5FilmDecoder" in trace


def test_what_is_special_about_a_stack_is_said(surgery_command, save_config):
    result = surgery_command("doctor", save_config(build_tiny_model("sd3")))
    assert "block returns no encoder_hidden_states and must run last" in findings_of(result, "transformer_blocks")[0]
    result = surgery_command("doctor", save_config(build_tiny_model("chroma")))
    assert "temb is made for each block by its number" in findings_of(result, "transformer_blocks")[0]
