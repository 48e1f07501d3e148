"""A variant as a torch.export program: the same values, at other sizes too, without this package."""

import subprocess
import sys

import pytest
import torch

from surgery.errors import RefusedError
from surgery.graph.apply import apply
from surgery.graph.program import export_program, save_program
from surgery.spec.load import read_spec
from surgery.testing import TINY_MODELS, build_tiny_model, tiny_call

SIZES = {"text": 7, "image": 9}
STACK = {"auraflow": "single_transformer_blocks"}
OPERATIONS = (
    'skip: "{stack}[1]"',
    'reverse: "{stack}[0:3]"',
    'parallel: {{layers: "{stack}[0:2]", loops: 2}}',
    'replace: {{component: "{stack}[1].{attention}", with: zero}}',
    'skip: "{stack}[2:4]"\n  - replace: {{component: "{stack}[1].{attention}", with: zero}}',
)
QUICK = {("pixart", OPERATIONS[4])}
CASES = [
    pytest.param(name, operation, marks=() if (name, operation) in QUICK else pytest.mark.slow)
    for name in TINY_MODELS
    for operation in OPERATIONS
]
STATIC_BATCH = {"chroma"}  # its own code builds a list as long as the batch
STATIC_RESOLUTION = {"pixart", "dit"}  # their position embeddings are made for one

LOAD = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("surgery", "diffusers", "transformers"):
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Refuse())
import torch

files = {"note": ""}
program = torch.export.load(sys.argv[1], extra_files=files).module()
inputs = torch.load(sys.argv[2], weights_only=True)
torch.save(program(**inputs)[0], sys.argv[3])
print(files["note"])
"""


def edit(name, operation):
    attention = "attn1" if name in ("pixart", "dit") else "attn"
    text = operation.format(stack=STACK.get(name, "transformer_blocks"), attention=attention)
    return apply(build_tiny_model(name), read_spec(f"surgery: v1\noperations:\n  - {text}\n"))


def run_both(variant, program, **sizes):
    call = {key: value for key, value in tiny_call(variant, **sizes).items() if isinstance(value, torch.Tensor)}
    with torch.no_grad():
        return program.exported.module()(**call)[0], variant(**tiny_call(variant, **sizes)).sample


@pytest.mark.parametrize(("name", "operation"), CASES)
def test_a_program_computes_what_the_variant_does_at_all_dynamic_sizes(name, operation):
    variant = edit(name, operation)
    program = export_program(variant, sizes=SIZES)
    stack = STACK.get(name, "transformer_blocks")
    names, is_skipped = set(program.exported.state_dict), 'skip: "{stack}[2:4]"' in operation
    assert any(held.startswith(f"{stack}.0.") for held in names)
    assert any(held.startswith(f"{stack}.2.") for held in names) != is_skipped
    resized = {"batch": 3, "text": 9, "image": 16, "height": 12, "width": 8}
    tried = [{}, {size: resized[size] for size in program.dynamic}]
    if "batch" in program.dynamic:
        tried.append({"batch": 1})
    for sizes in tried:
        got, want = run_both(variant, program, **sizes)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)  # export may reorder float32 sums
    assert ("batch" in program.dynamic) == (name not in STATIC_BATCH)
    assert ("height" in program.fixed) == (name in STATIC_RESOLUTION)
    assert program.inputs["timestep"]["shape"] == ([2] if name in STATIC_BATCH else ["batch"])


@pytest.mark.slow
def test_a_program_is_loaded_without_this_package_and_diffusers(tmp_path):
    variant = edit("sd3", 'skip: "{stack}[1]"')
    save_program(export_program(variant, sizes=SIZES), tmp_path / "variant.pt2", {"note": "kept"})
    inputs = tiny_call(variant, batch=3)
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [str(tmp_path / name) for name in ("variant.pt2", "inputs.pt", "output.pt")]
    command = [sys.executable, "-c", LOAD, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "output.pt", weights_only=True), variant(**inputs).sample)


def test_a_class_without_example_inputs_is_refused(monkeypatch):
    variant = edit("dit", 'skip: "{stack}[1]"')
    monkeypatch.setattr("surgery.graph.program.example_call", lambda *_, **__: None)
    with pytest.raises(RefusedError, match="an export needs example inputs, and there are no example inputs for DiT"):
        export_program(variant)


def test_what_torch_can_not_export_is_refused_with_its_reason(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such operator\nand a long story")

    variant = edit("dit", 'skip: "{stack}[1]"')
    monkeypatch.setattr("torch.export.export", fail)
    with pytest.raises(RefusedError, match=r"^DiTTransformer2DModel can't be exported: no such operator$"):
        export_program(variant)
