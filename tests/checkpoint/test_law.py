"""The law: for every plan that both backends express, graph == checkpoint == edit by hand, to the bit but for folds.

That the graph is the edit by hand, on the same models, is seen in tests/graph/test_oracle.py; here the checkpoint is,
and on random specs both are.
"""

import itertools
import random

import original_layouts as layouts
import pytest
import torch
from random_specs import MOVES, random_plan
from tiny import REFERENCE, STACKS

from surgery.errors import RefusedError
from surgery.graph.variant import build_variant
from surgery.testing import run_by_hand

FOLD_TOLERANCE = 2e-5  # float32: a constant goes through one more matrix product, softmax rows add up to 1 nearly
HALF_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3}  # the same in those dtypes, and the rounding of the mean

DTYPES = [torch.float32, *(pytest.param(half, marks=pytest.mark.slow) for half in (torch.bfloat16, torch.float16))]

CASES = [(name, stack) for name, stacks in STACKS.items() for stack in stacks if name != "chroma"]  # refused
REFERENCE_CASES = [(name, *stacks) for name, stacks in REFERENCE.items()]
NO_BIAS = "has no bias that could carry a mean"
QUICK_CASES = [case for case in CASES if case[0] in ("pixart", "sd3", "dit")] + [("flux", "single_transformer_blocks")]
QUICK_CASES += [case for case in REFERENCE_CASES if case[0] in ("cross_attention", "freq_gate")]
QUICK_SHARDS = [("flux", False), ("sd3", True)]  # bytes are copied, whatever they are: no dtype knows of shards
FEWER_CASES = [pytest.param(*case, marks=[pytest.mark.slow] * (case not in QUICK_CASES)) for case in [*CASES, *REFERENCE_CASES]]
MOVED_FIRST = {"reverse", "shuffle", "order", "repeat-using", "skip-first"}  # the first layer becomes another one
OPERATIONS = {
    "none": None,
    "skip": 'skip: "{s}[1]"',
    "skip-first": 'skip: "{s}[0]"',
    "skip-last": 'skip: "{s}[-1]"',
    "skip-two": 'skip: "{s}[1, -1]"',
    "repeat-times": 'repeat: {{layers: "{s}[1:3]", times: 3}}',
    "repeat-using": 'repeat: {{layers: "{s}[0:3]", using: center}}',
    "reverse": 'reverse: "{s}[0:3]"',
    "shuffle": 'shuffle: {{layers: "{s}[0:3]", seed: 3}}',
    "order": 'order: {{stack: "{s}", as: [1, 0, 0, 2]}}',
}
# Of a schedule the files know no more than the order of its layers: all operations on one stack, and on the others
# those that meet what is their own there: the count of another stack, a last block without text, a first that is read.
QUICK_OPERATIONS = {
    "pixart": list(OPERATIONS),
    "sd3": ["none", "skip-last", "skip-two", "repeat-times", "order"],
    "flux": ["skip-first", "skip-last", "repeat-using"],
    "dit": ["skip", "repeat-times"],
    **dict.fromkeys(REFERENCE, ["order"]),
    "freq_gate": ["skip-two", "repeat-using", "shuffle"],
}
QUICK_SCHEDULES = [*QUICK_CASES, *REFERENCE_CASES]
SCHEDULES = [
    pytest.param(
        *(name, stack, each),
        marks=[pytest.mark.slow] * (each not in QUICK_OPERATIONS.get(name, ()) or (name, stack) not in QUICK_SCHEDULES),
    )
    for name, stack in [*CASES, *REFERENCE_CASES]
    for each in OPERATIONS
    if name != "dit" or each not in MOVED_FIRST  # DiT reads weights of its first block: refused, see test_numeric.py
]


def relative_error(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def outputs(saved, plan, reload, call_of, folder, means=None):
    """Of the checkpoint, and the edit by hand."""
    call = call_of(saved.model)
    with torch.no_grad():
        checkpoint = reload(saved.model, folder)(**call).sample
    return checkpoint, run_by_hand(saved.model, plan, call, means)


def output_of_graph(saved, plan, call_of):
    with torch.no_grad():
        return build_variant(saved.model, plan, saved.anatomy)(**call_of(saved.model)).sample


@pytest.mark.parametrize(("name", "stack", "operation"), SCHEDULES)
def test_schedules_are_the_same_to_the_bit(saved, plan_of, write, reload, call_of, tmp_path, name, stack, operation):
    tiny = saved(name)
    text = OPERATIONS[operation]
    plan = plan_of([] if text is None else [text.format(s=stack)], tiny.anatomy)
    folder = write(tiny.many, tiny.model, tiny.anatomy, plan, tmp_path / "out", max_shard_size="40KB")
    checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder)
    assert torch.equal(checkpoint, by_hand)
    with torch.no_grad():
        assert operation == "none" or relative_error(checkpoint, tiny.model(**call_of(tiny.model)).sample) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "sharded"),
    [
        pytest.param(name, sharded, marks=[pytest.mark.slow] * ((name, sharded) not in QUICK_SHARDS))
        for name in dict(CASES)
        for sharded in (False, True)
    ],
)
def test_every_dtype_is_the_same_to_the_bit(saved, plan_of, write, reload, call_of, tmp_path, name, sharded, dtype):
    tiny = saved(name, dtype)
    stack = STACKS[name][-1]
    plan = plan_of([f'skip: "{stack}[1]"', f'repeat: {{layers: "{stack}[2]", times: 2}}'], tiny.anatomy)
    size = {"max_shard_size": "20KB"} if sharded else {}
    folder = write(tiny.many if sharded else tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / "out", **size)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == sharded
    checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder)
    assert checkpoint.dtype == dtype
    assert torch.equal(checkpoint, by_hand)


def components_of(anatomy, stack, index):
    """The components of a block that have weights and token-shaped outputs, those within others left out."""
    found = [c for c in anatomy.find_stack(stack).kind(index).components if c.outputs and c.num_parameters]
    return [c for c in found if not any(c.name.startswith(f"{other.name}.") for other in found)]


def random_means(anatomy, stack, index, component):
    generator = torch.Generator().manual_seed(5)
    path = f"{stack}.{index}.{component.name}"
    return {path: {o.stream: torch.randn(o.out_channels, generator=generator) for o in component.outputs}}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize(("name", "stack"), FEWER_CASES)
def test_folds_are_what_the_graph_computes(saved, plan_of, write, reload, call_of, tmp_path, name, stack, kind, dtype):
    tiny = saved(name, dtype)
    num_folded = 0
    for number, component in enumerate(components_of(tiny.anatomy, stack, 1)):
        means = random_means(tiny.anatomy, stack, 1, component)
        plan = plan_of([f'replace: {{component: "{stack}[1].{component.name}", with: {kind}}}'], tiny.anatomy, means)
        try:
            folder = write(tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / f"out{number}", means=means)
        except RefusedError as error:
            is_sum = (name, component.name) == ("freq_gate", "condition")  # it adds the time to what its layers make
            reason = "none of its layers alone can make its output constant" if is_sum else NO_BIAS
            assert (kind == "mean" or is_sum) and reason in str(error)
            continue
        num_folded += 1
        checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder, means)
        if kind == "zero":
            assert torch.equal(checkpoint, by_hand)
        else:
            assert relative_error(checkpoint, by_hand) < HALF_TOLERANCE.get(dtype, FOLD_TOLERANCE)
    assert num_folded > 0 or (kind == "mean" and name == "auraflow")


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_an_output_that_the_last_layer_drops_needs_no_carrier(saved, plan_of, write, reload, call_of, tmp_path, kind):
    tiny = saved("sd3")
    last = len(tiny.anatomy.find_stack("transformer_blocks").kind_of) - 1
    attention = tiny.anatomy.find_stack("transformer_blocks").kind(last).find_component("attn")
    means = random_means(tiny.anatomy, "transformer_blocks", last, attention)
    plan = plan_of([f'replace: {{component: "transformer_blocks[-1].attn", with: {kind}}}'], tiny.anatomy, means)
    folder = write(tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / "out", means=means)
    checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder, means)
    assert relative_error(checkpoint, by_hand) < FOLD_TOLERANCE
    with torch.no_grad():
        assert relative_error(checkpoint, tiny.model(**call_of(tiny.model)).sample) > 1e-4


@pytest.mark.parametrize("by", [0.5, 0.3, -1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scaled_single_block_of_flux_is_what_the_graph_computes(
    saved, plan_of, write, reload, call_of, tmp_path, dtype, by
):
    tiny = saved("flux", dtype)
    plan = plan_of([f'scale: {{layers: "single_transformer_blocks[1:3]", by: {by}}}'], tiny.anatomy)
    folder = write(tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / "out")
    checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder)
    assert relative_error(checkpoint, by_hand) < HALF_TOLERANCE.get(dtype, FOLD_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "stack"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] == "sd3-dual")) for case in CASES if case[0] != "dit"],
)
def test_a_scale_of_zero_hands_the_streams_through(saved, plan_of, write, reload, call_of, tmp_path, name, stack):
    tiny = saved(name)
    plan = plan_of([f'scale: {{layers: "{stack}[1]", by: 0}}'], tiny.anatomy)
    folder = write(tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / "out")
    checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder)
    assert relative_error(checkpoint, by_hand) < FOLD_TOLERANCE


@pytest.mark.parametrize(("name", "stack"), [("pixart", "transformer_blocks"), ("flux", "transformer_blocks")])
def test_a_scale_is_refused_where_one_branch_feeds_another(saved, plan_of, write, tmp_path, name, stack):
    tiny = saved(name)
    plan = plan_of([f'scale: {{layers: "{stack}[1]", by: 0.5}}'], tiny.anatomy)
    with pytest.raises(RefusedError, match=r"blocks\[1\] scaled by 0\.5: one of its branches feeds another"):
        write(tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / "out")


@pytest.mark.parametrize("seed", [n if n < 8 else pytest.param(n, marks=pytest.mark.slow) for n in range(24)])
def test_random_specs_on_random_classes(saved, plan_of, write, reload, call_of, tmp_path, seed):
    rng = random.Random(seed)
    tiny = saved(rng.choice([name for name in dict(CASES) if name != "dit"]))
    plan, _ = random_plan(rng, tiny.anatomy, plan_of, [*MOVES, "ff", "attn"])
    folder = write(
        tiny.many, tiny.model, tiny.anatomy, plan, tmp_path / "out", max_shard_size=rng.choice([10**4, 10**9])
    )
    checkpoint, by_hand = outputs(tiny, plan, reload, call_of, folder)
    assert torch.equal(checkpoint, by_hand) and torch.equal(output_of_graph(tiny, plan, call_of), by_hand)


def test_the_law_sees_a_wrong_checkpoint(saved, plan_of, write, reload, call_of, tmp_path):
    """The saboteur: the checkpoint of another plan must not pass for this one's."""
    tiny = saved("sd3")
    right, *wrong = (
        plan_of([operation], tiny.anatomy)
        for operation in (
            'skip: "transformer_blocks[1]"',
            'skip: "transformer_blocks[2]"',
            'repeat: {layers: "transformer_blocks[0:2]", using: 0}',
        )
    )
    graph = output_of_graph(tiny, right, call_of)
    for number, plan in enumerate(wrong):
        folder = write(tiny.folder, tiny.model, tiny.anatomy, plan, tmp_path / f"b{number}")
        with torch.no_grad():
            assert relative_error(reload(tiny.model, folder)(**call_of(tiny.model)).sample, graph) > 1e-3


def by_hand_on_disk(model, keep, folder):
    """What a user would do: take blocks out of the ModuleList, mend the config, save."""
    import copy

    edited = copy.deepcopy(model)
    edited.transformer_blocks = torch.nn.ModuleList([copy.deepcopy(model.transformer_blocks[i]) for i in keep])
    edited.register_to_config(num_layers=len(keep))
    edited.save_pretrained(folder)


@pytest.mark.parametrize("keep", [(0, 2, 4), (4, 3, 2, 1, 0), (1, 1, 2)])
def test_files_hold_what_save_pretrained_writes_of_an_edited_model(saved, plan_of, write, tmp_path, keep):
    from safetensors.torch import load_file

    tiny = saved("pixart")
    order = ", ".join(map(str, keep))
    plan = plan_of([f"order: {{stack: transformer_blocks, as: [{order}]}}"], tiny.anatomy)
    written = write(tiny.many, tiny.model, tiny.anatomy, plan, tmp_path / "ours")
    by_hand_on_disk(tiny.model, keep, tmp_path / "theirs")
    ours, theirs = (
        load_file(folder / "diffusion_pytorch_model.safetensors") for folder in (written, tmp_path / "theirs")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


QUICK_FILES = [  # what a prefix does to names hangs on no operation
    *(("flux", "", operation) for operation in ("skip-two", "order", "mean", "zero-all")),
    *(("sd3", "model.diffusion_model.", operation) for operation in ("repeat-times", "reverse", "zero", "skip-two")),
]
FILES = itertools.product(
    ["flux", "sd3", "sd3-dual"],
    ["", "model.diffusion_model."],
    ["skip-two", "repeat-times", "reverse", "order", "zero", "mean", "zero-all"],
)


@pytest.mark.parametrize(
    ("name", "prefix", "operation"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case not in QUICK_FILES)) for case in FILES],
)
def test_single_files_in_original_layouts(saved, plan_of, write, call_of, tmp_path, name, prefix, operation):
    tiny = saved(name)
    stack = STACKS[name][-1]
    means = None
    if operation in ("zero", "mean"):
        means = random_means(
            tiny.anatomy, stack, 1, next(c for c in components_of(tiny.anatomy, stack, 1) if c.name == "attn")
        )
        operations = [f'replace: {{component: "{stack}[1].attn", with: {operation}}}']
    elif operation == "zero-all":
        operations = ['replace: {component: "*[1].attn", with: zero}', f'skip: "{STACKS[name][0]}[-1]"']
    else:
        operations = [OPERATIONS[operation].format(s=stack)]
    plan = plan_of(operations, tiny.anatomy, means)
    width = tiny.model.config.num_attention_heads * tiny.model.config.attention_head_dim
    with layouts.original_flux_width(width):
        (tmp_path / "in").mkdir()
        layouts.save_original(tiny.model, tmp_path / "in" / "m.safetensors", prefix=prefix)
        file = tmp_path / "in" / "m.safetensors"
        folder = write(file, tiny.model, tiny.anatomy, plan, tmp_path / "out", means=means, single="pruned.safetensors")
        loaded = type(tiny.model).from_single_file(str(folder / "pruned.safetensors"), config=str(folder / "config"))
    call = call_of(tiny.model)
    with torch.no_grad():
        checkpoint = loaded.eval()(**call).sample
    by_hand = run_by_hand(tiny.model, plan, call, means)
    if operation == "mean":
        assert relative_error(checkpoint, by_hand) < FOLD_TOLERANCE
    else:
        assert torch.equal(checkpoint, by_hand)
