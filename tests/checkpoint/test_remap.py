"""The law: an adapter of the original on the graph variant == the same, remapped, on the pruned checkpoint."""

import copy
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import logging
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from surgery.checkpoint import adapter_leaves
from surgery.graph.apply import apply
from surgery.plan.planned import PlannedSource, plan_spec_file
from surgery.publish.pruned_model import CompileOptions, compile_planned
from surgery.publish.remapped_lora import RemappedLora, remap_lora
from surgery.testing import build_tiny_model, tiny_call

FOLD_TOLERANCE = 2e-5  # float32: as for folds without an adapter; a factor goes through one product instead of another


def slow(value: Any) -> Any:
    """A case that only `make test-slow` tries."""
    return slow_case(value)


def slow_case(*values: Any) -> Any:
    """The same, of several values."""
    return pytest.param(*values, marks=pytest.mark.slow)


FILE = "pytorch_lora_weights.safetensors"
STACKS = {
    "pixart": ["transformer_blocks"],
    "sd3": ["transformer_blocks"],
    "sd3-dual": ["transformer_blocks"],
    "flux": ["transformer_blocks", "single_transformer_blocks"],
    "auraflow": ["joint_transformer_blocks", "single_transformer_blocks"],
}
CASES = [(name, stack) for name, stacks in STACKS.items() for stack in stacks]
SCHEDULES = {
    "skip-last": ['skip: "{s}[-1]"'],
    "repeat-and-skip": ['skip: "{s}[0]"', 'repeat: {{layers: "{s}[1:3]", times: 2}}'],
    "order": ['order: {{stack: "{s}", as: [1, 0, 0, 2]}}'],
}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "bias": {"lora_bias": True},
    "ranks": {
        "rank_pattern": {r"transformer_blocks\.[13]\..*": 3, "to_q": 4},
        "alpha_pattern": {r"transformer_blocks.2.*": 1},
    },
}

pytestmark = pytest.mark.filterwarnings("ignore:Adapter 'default'.* invalid shape")  # PEFT's false alarm on lora_bias


@pytest.fixture(autouse=True)
def quiet():
    """diffusers warns of what the graph variant has no module for any more."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


@dataclass(frozen=True)
class Case:
    """A planned spec of a tiny model."""

    model: nn.Module
    planned: PlannedSource
    folder: Path

    def graph(self) -> nn.Module:
        return apply(copy.deepcopy(self.model), self.planned.spec)  # with weights of its own

    def checkpoint(self) -> nn.Module:
        out = self.folder / "pruned"
        if not out.exists():
            compile_planned(self.planned, out, CompileOptions(verify="structure"))
        return type(self.model).from_pretrained(out).eval()

    def remap(self, lora: Path) -> RemappedLora:
        return remap_lora(self.planned, lora, self.folder / "remapped" / FILE, force=True)


@pytest.fixture(scope="module")
def case_of(tmp_path_factory):
    """The case of a tiny model and some operations, made once."""

    @functools.cache
    def make(name: str, *operations: str) -> Case:
        folder = tmp_path_factory.mktemp(name)
        model = build_tiny_model(name)
        model.save_pretrained(folder / "model")
        text = "".join(f"  - {operation}\n" for operation in operations)
        body = f"operations:\n{text}" if operations else "operations: []\n"
        spec = folder / "spec.yaml"
        spec.write_text(f"surgery: v1\nmodel: {folder / 'model'}\n{body}")
        return Case(model, plan_spec_file(spec), folder)

    return make


def linear_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def save_lora(
    name: str, folder: Path, *, targets: list[str] | None = None, dtype=torch.float32, **options: Any
) -> Path:
    """A random LoRA for a tiny model, on all of its linear layers unless `targets` says which, made by PEFT."""
    model = build_tiny_model(name)
    targets = targets or linear_names(model)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=targets, **options)
    inject_adapter_in_model(config, model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter_name, value in sorted(model.named_parameters()):
            if "lora_magnitude" in parameter_name:
                value.mul_(1 + 0.3 * torch.rand(value.shape, generator=generator))
            elif "lora_" in parameter_name:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
                value.data = value.data.to(dtype)
    said = {key: list(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(said)}
    file = folder / "lora" / FILE
    file.parent.mkdir()
    model.peft_config = {"default": config}
    save_file(get_peft_model_state_dict(model), file, metadata=metadata)
    return file


def with_lora(model: nn.Module, file: Path) -> nn.Module:
    """The model with an adapter and with what its file says of itself, loaded by diffusers; by PEFT where it can't."""
    if not hasattr(model, "load_lora_adapter"):
        tensors, config = load_file(file), LoraConfig(**peft_metadata(file))
        inject_adapter_in_model(config, model, state_dict=tensors)
        model.peft_config = {"default": config}
        set_peft_model_state_dict(model, tensors)
        return model
    model.load_lora_adapter(file.parent, prefix=None, weight_name=file.name, use_safetensors=True)
    return model


@torch.no_grad()
def output(model: nn.Module, call: dict[str, Any]) -> torch.Tensor:
    return model(**call).sample


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def both_roads(case: Case, lora: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the graph with the adapter, and of the checkpoint with the remapped one; the adapter matters."""
    call = tiny_call(case.model)
    done = case.remap(lora)
    graph = case.graph()
    without = output(graph, call)
    expected, actual = (output(with_lora(m, f), call) for m, f in ((graph, lora), (case.checkpoint(), done.out)))
    assert relative_error(expected, without) > 1e-3
    return actual, expected


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "stack"),
    [case if case == ("flux", "single_transformer_blocks") else slow_case(*case) for case in CASES],
)
def test_schedules_are_the_same_to_the_bit(case_of, tmp_path, name, stack, schedule):
    case = case_of(name, *(operation.format(s=stack) for operation in SCHEDULES[schedule]))
    actual, expected = both_roads(case, save_lora(name, tmp_path))
    assert torch.equal(actual, expected)


def test_without_operations_it_is_the_same_file_but_for_its_recipe(case_of, tmp_path):
    lora = save_lora("flux", tmp_path, rank_pattern={"to_q": 3, "proj_mlp": 4})
    done = case_of("flux").remap(lora)
    before, after = load_file(lora), load_file(done.out)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert peft_metadata(done.out) == peft_metadata(lora)
    assert done.remapped.fallen == () and done.remapped.others == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "operation"), [slow_case("sd3", 'skip: "{s}[1, -1]"'), ("pixart", 'reverse: "{s}[0:3]"')]
)
def test_every_kind_of_peft_follows_to_the_bit(case_of, tmp_path, name, operation, kind):
    case = case_of(name, operation.format(s="transformer_blocks"))
    targets = linear_names(case.model) if kind != "ranks" else ["to_q", "to_v", "linear", "net.2"]
    actual, expected = both_roads(case, save_lora(name, tmp_path, targets=targets, **KINDS[kind]))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("component", [slow("attn"), "ff"])
@pytest.mark.parametrize("name", [slow("sd3"), slow("auraflow"), "flux"])
def test_what_is_folded_to_zero_is_the_same_to_the_bit(case_of, tmp_path, name, component):
    case = case_of(name, f'replace: {{component: "{STACKS[name][0]}[1].{component}", with: zero}}')
    lora = save_lora(name, tmp_path)
    actual, expected = both_roads(case, lora)
    assert torch.equal(actual, expected)
    fallen = case.remap(lora).remapped.fallen
    assert {(item.index, item.reason) for item in fallen} == {(1, "its output is constant now")}


@pytest.mark.parametrize("by", [0.5, pytest.param(-1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["lora", slow("dora"), slow("bias")])
def test_a_scaled_single_block_of_flux_scales_its_adapter(case_of, tmp_path, kind, by):
    case = case_of("flux", f'scale: {{layers: "single_transformer_blocks[1:3]", by: {by}}}')
    actual, expected = both_roads(case, save_lora("flux", tmp_path, **KINDS[kind]))
    assert relative_error(actual, expected) < FOLD_TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bytes_are_those_of_the_original(case_of, tmp_path, dtype):
    case = case_of("sd3", 'skip: "transformer_blocks[1, -1]"', 'repeat: {layers: "transformer_blocks[0]", times: 2}')
    lora = save_lora("sd3", tmp_path, dtype=dtype)
    before, after = load_file(lora), load_file(case.remap(lora).out)
    order = [0, 0, 2, 3]
    assert {tensor.dtype for tensor in after.values()} == {dtype}
    for name, tensor in after.items():
        stack, position, rest = name.split(".", maxsplit=2) if name.startswith("transformer_blocks") else (None,) * 3
        old = before[name if stack is None else f"{stack}.{order[int(position)]}.{rest}"]
        if len(tensor) < len(old):
            assert rest == "norm1_context.linear.lora_B.weight" and position == "3"
            old = torch.cat([old[16:32], old[:16]])
        assert torch.equal(tensor, old), name


# The saboteurs of the law.


def other_rows(name, part, stored, rows, num_rows, *, is_tensor=False):
    return adapter_leaves.follow_rows(name, part, stored, list(reversed(rows)), num_rows, is_tensor=is_tensor)


def test_the_law_sees_rows_in_the_wrong_order(case_of, tmp_path, monkeypatch):
    monkeypatch.setattr("surgery.checkpoint.remap.follow_rows", other_rows)
    case = case_of("sd3", 'skip: "transformer_blocks[-1]"')
    actual, expected = both_roads(case, save_lora("sd3", tmp_path))
    assert relative_error(actual, expected) > 1e-4


def test_the_law_sees_a_factor_that_is_left_out(case_of, tmp_path, monkeypatch):
    monkeypatch.setitem(adapter_leaves.ROLES, "lora_B.weight", adapter_leaves.INNER)
    case = case_of("flux", 'scale: {layers: "single_transformer_blocks[1]", by: 0.5}')
    actual, expected = both_roads(case, save_lora("flux", tmp_path))
    assert relative_error(actual, expected) > 1e-3


def test_the_law_sees_an_adapter_that_was_not_remapped(case_of, tmp_path):
    case = case_of("pixart", 'reverse: "transformer_blocks[0:3]"')
    lora, call = save_lora("pixart", tmp_path), tiny_call(case.model)
    expected = output(with_lora(case.graph(), lora), call)
    assert relative_error(output(with_lora(case.checkpoint(), lora), call), expected) > 1e-3


# LyCORIS, by hand: the update of each module is added to its weight.


def update(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The update of one module, as LyCORIS computes it."""
    if "diff" in parts:
        return parts["diff"]
    if "hada_w1_a" in parts:
        scale = parts["alpha"] / parts["hada_w1_b"].shape[0]
        return scale * (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_w2" in parts:
        second, scale = parts["lokr_w2"], 1.0 if "lokr_w1" in parts else parts["alpha"] / parts["lokr_w1_b"].shape[0]
    else:
        second, scale = parts["lokr_w2_a"] @ parts["lokr_w2_b"], parts["alpha"] / parts["lokr_w2_b"].shape[0]
    return scale * torch.kron(first, second)


def lycoris_parts(weight: torch.Tensor, kind: str, generator: torch.Generator) -> dict[str, torch.Tensor]:
    rows, columns = weight.shape

    def random(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    alpha = {"alpha": torch.tensor(1.5)}
    match kind:
        case "diff":
            return {"diff": random(rows, columns) * 0.1}
        case "hada":
            factors = {f"hada_w{n}_{s}": random(*shape) for n in (1, 2) for s, shape in _ab(rows, columns).items()}
            return factors | alpha
        case "lokr-full":
            return {"lokr_w1": random(2, 2), "lokr_w2": random(rows // 2, columns // 2)} | alpha
        case "lokr-low":
            low = {f"lokr_w2_{side}": random(*shape) for side, shape in _ab(rows // 2, columns // 2).items()}
            return {"lokr_w1": random(2, 2)} | low | alpha
    low = {f"lokr_w1_{side}": random(*shape) for side, shape in _ab(2, 2).items()}
    return low | {"lokr_w2": random(rows // 2, columns // 2)} | alpha


def _ab(rows, columns):
    return {"a": (rows, 2), "b": (2, columns)}


LYCORIS = [slow("diff"), slow("hada"), "lokr-full", slow("lokr-low"), "lokr-both"]


def save_lycoris(model: nn.Module, modules: list[str], kind: str, file: Path, prefix: str = "lycoris_") -> Path:
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for module in modules:
        parts = lycoris_parts(model.get_submodule(module).weight, kind, generator)
        tensors |= {f"{prefix}{module.replace('.', '_')}.{part}": tensor for part, tensor in parts.items()}
    file.parent.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


@torch.no_grad()
def add_by_hand(model: nn.Module, file: Path, prefix: str = "lycoris_") -> int:
    """Add the updates of a file to the weights of the modules that the model has; how many there were."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(file).items():
        module, _, part = name.removeprefix(prefix).partition(".")
        parts.setdefault(module, {})[part] = tensor
    by_name = {name.replace(".", "_"): module for name, module in model.named_modules()}
    present = [module for module in parts if module in by_name]
    for module in present:
        by_name[module].weight += update(parts[module])
    return len(present)


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        *(pytest.param(*each.values, "lycoris_", marks=each.marks) for each in LYCORIS if not isinstance(each, str)),
        ("lokr-both", "lycoris_"),
        pytest.param("lokr-low", "transformer.lycoris_", marks=pytest.mark.slow),
        ("lokr-full", "lora_transformer_"),
    ],
)
def test_lycoris_files_follow(case_of, tmp_path, kind, prefix):
    case = case_of("flux", 'skip: "transformer_blocks[1]"', 'scale: {layers: "single_transformer_blocks[2]", by: 0.5}')
    modules = [name for name in linear_names(case.model) if "blocks" in name]
    lora = save_lycoris(case.model, modules, kind, tmp_path / "lycoris" / FILE, prefix)
    graph, checkpoint, call = case.graph(), case.checkpoint(), tiny_call(case.model)
    before = output(graph, call)
    done = case.remap(lora)
    assert add_by_hand(checkpoint, done.out, prefix) == add_by_hand(graph, lora, prefix) > 0
    assert relative_error(output(checkpoint, call), output(graph, call)) < FOLD_TOLERANCE
    assert relative_error(output(graph, call), before) > 1e-3
    assert {(item.index, item.reason) for item in done.remapped.fallen} == {(1, "the layer does not run")}


@pytest.mark.parametrize("kind", LYCORIS)
def test_rows_of_a_kronecker_product_fall_away_and_others_are_cut(case_of, tmp_path, kind):
    case = case_of("sd3", 'skip: "transformer_blocks[-1]"')
    modules = [name for name in linear_names(case.model) if "blocks" in name]
    lora = save_lycoris(case.model, modules, kind, tmp_path / "lycoris" / FILE)
    done = case.remap(lora)
    fallen = {(item.index, item.inside) for item in done.remapped.fallen if item.reason.startswith("only some rows")}
    assert fallen == ({(3, "norm1_context.linear")} if kind.startswith("lokr") else set())
    if not fallen:
        graph, checkpoint, call = case.graph(), case.checkpoint(), tiny_call(case.model)
        assert add_by_hand(checkpoint, done.out) < add_by_hand(graph, lora)
        assert torch.equal(output(checkpoint, call), output(graph, call))


# What a file says of its modules.


def peft_metadata(file: Path) -> dict[str, Any]:
    return json.loads(metadata_of(file)["lora_adapter_metadata"])


def metadata_of(file: Path) -> dict[str, str]:
    content = file.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def test_suffixes_that_still_say_the_same_stay(case_of, tmp_path):
    case = case_of("pixart", 'skip: "transformer_blocks[0]"')
    lora = save_lora("pixart", tmp_path, targets=["to_q", "to_k"], rank_pattern={"to_k": 3})
    assert peft_metadata(case.remap(lora).out) == peft_metadata(lora)


def test_names_of_modules_and_patterns_follow(case_of, tmp_path):
    case = case_of("pixart", "order: {stack: transformer_blocks, as: [3, 1, 1]}")
    targets = [f"transformer_blocks.{index}.attn1.to_q" for index in range(5)]
    patterns = {"transformer_blocks.1.attn1.to_q": 4, r"transformer_blocks\.[23]\..*": 3}
    lora = save_lora("pixart", tmp_path, targets=targets, rank_pattern=patterns)
    done = case.remap(lora)
    said = peft_metadata(done.out)
    assert said["target_modules"] == [f"transformer_blocks.{position}.attn1.to_q" for position in range(3)]
    assert said["rank_pattern"] == {
        r"^transformer_blocks\.0\.attn1\.to_q": 3,
        r"^transformer_blocks\.1\.attn1\.to_q": 4,
        r"^transformer_blocks\.2\.attn1\.to_q": 4,
    }
    assert done.remapped.modules["transformer_blocks.1.attn1.to_q"] == tuple(targets[1:3])


def test_the_recipe_is_in_the_file_beside_what_was_there(case_of, tmp_path):
    case = case_of("pixart", 'skip: "transformer_blocks[0]"')
    lora = save_lora("pixart", tmp_path)
    done = case.remap(lora)
    said = metadata_of(done.out)
    assert said["format"] == "pt"
    recipe = json.loads(said["surgery"])
    assert (recipe["kind"], recipe["adapter"]) == ("adapter", FILE)
    assert recipe["plan_hash"] == case.planned.plan.hash
    before, after = len(load_file(lora)), len(load_file(done.out))
    assert recipe["tensors"] == {"before": before, "after": after, "fallen": before - after, "not_of_the_model": 0}
