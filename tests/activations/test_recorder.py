"""What is measured online is what comes out of keeping every activation; and the model does what it did."""

import numpy as np
import pytest
import stored_activations as reference
import torch

from surgery.activations.recorder import PADDING, TEXT, Recorder
from surgery.anatomy.from_model import read_anatomy
from surgery.errors import InputError
from surgery.profiles.layer_profile import Moments
from surgery.testing import TINY_MODELS, build_tiny_model, tiny_call

FAMILIES = [name for name in TINY_MODELS if name != "chroma"]
SHARES = (0.02, 0.4, 0.97, 1.0)


def exact_model(name):
    """A tiny model in float64, and calls of it that differ."""
    model = build_tiny_model(name).double()
    calls = []
    for seed in range(len(SHARES)):
        torch.manual_seed(seed)
        call = {
            key: value.double() + 0.1 * torch.randn(value.shape, dtype=torch.float64)
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 2
            else value.double()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value
            for key, value in tiny_call(model).items()
        }
        calls.append(call)
    return model, calls


def alternate(rows):
    return ["unconditional", "conditional"] * (rows // 2) + ["conditional"] * (rows % 2)


def close(actual, expected):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return bool((np.abs(actual - expected) <= 1e-10 * np.maximum(np.abs(expected), 1e-3)).all())


@pytest.mark.parametrize("token", ["all", pytest.param("last", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_sums_are_those_of_all_activations(name, token):
    model, calls = exact_model(name)
    anatomy = read_anatomy(model)
    text_mask = {"encoder_hidden_states": 3}  # so many tokens are no padding
    recorder = Recorder(model, anatomy, num_bins=4, token=token)
    recorder.branches_of_rows = alternate

    def find_mask(argument):
        if argument.name not in text_mask:
            return None
        return torch.arange(argument.shape[1]).repeat(argument.shape[0], 1) < text_mask[argument.name]

    recorder.find_mask = find_mask
    with torch.no_grad(), recorder:
        for call, share in zip(calls, SHARES, strict=True):
            model(**call)
            recorder.settle(share)
    profile = recorder.profile({})
    kept = reference.KeptActivations(model, anatomy, sorted({key[0] for key in profile.components}))
    with torch.no_grad():
        for call in calls:
            model(**call)
    kept.remove()
    rows = len(next(iter(kept.forwards[0]["states"].values()))[0])
    checked = set()
    for (stack, stream, part), sums in profile.streams.items():
        branch, _, tokens = part.partition(":")
        expected = [np.zeros_like(getattr(sums, field)) for field in ("cosine", "token_cosine", "angle", "residual")]
        for forward, share in zip(kept.forwards, SHARES, strict=True):
            states = forward["states"][stack, stream]
            mask = find_mask(type("Argument", (), {"name": stream, "shape": tuple(states[0].shape)}))
            chosen = None if mask is None or not tokens else (mask[0] if tokens == TEXT else ~mask[0])
            for row in (row for row in range(rows) if alternate(rows)[row] == branch):
                found = reference.compare([state[row] for state in states], chosen, last=token == "last")
                for total, value in zip(expected, found[:4], strict=True):
                    total[min(int(share * 4), 3)] += value
        for field, total in zip(("cosine", "token_cosine", "angle", "residual"), expected, strict=True):
            off_diagonal = getattr(sums, field), total
            if field == "angle":  # arccos at 1 amplifies the last bit of a cosine with itself
                eye = np.eye(sums.num_states, dtype=bool)
                off_diagonal = tuple(np.where(eye, 0, value) for value in off_diagonal)
                assert np.abs(getattr(sums, field)[:, eye]).max() < 1e-5
            assert close(*off_diagonal), (stack, stream, part, field)
        checked.add((stack, stream, tokens))
    assert {(s.name, stream, "") for s in anatomy.stacks for stream in s.streams} <= checked
    assert not any(s.streams and "encoder_hidden_states" in s.streams for s in anatomy.stacks) or {
        TEXT,
        PADDING,
    } <= {tokens for _, _, tokens in checked}


@pytest.mark.parametrize("name", FAMILIES)
def test_means_and_variances_of_outputs_are_those_of_all_of_them(name):
    model, calls = exact_model(name)
    anatomy = read_anatomy(model)
    recorder = Recorder(model, anatomy)
    recorder.branches_of_rows = alternate
    with torch.no_grad(), recorder:
        for call in calls:
            model(**call)
            recorder.settle(0.5)
    profile = recorder.profile({})
    kept = reference.KeptActivations(model, anatomy, sorted({key[0] for key in profile.components}))
    with torch.no_grad():
        for call in calls:
            model(**call)
    kept.remove()
    assert profile.components
    for path, stream, branch in profile.components:
        stack, index, component = _split(path, anatomy)
        outputs = anatomy.find_stack(stack).kind(index).find_component(component).outputs
        position = [output.stream for output in outputs].index(stream)
        values = [forward["outputs"][path][position] for forward in kept.forwards]
        rows = [row for row in range(len(values[0])) if alternate(len(values[0]))[row] == branch]
        flat = np.concatenate([value[rows].flatten(0, 1).numpy() for value in values])
        moments = profile.components[path, stream, branch]
        assert moments.count == len(flat)
        assert close(moments.mean, flat.mean(0)) and close(moments.variance, flat.var(0))


def masks_by_row(name, shape):
    """A mask of the text whose rows differ."""
    if name != "encoder_hidden_states":
        return None
    return torch.arange(shape[1])[None, :] < torch.arange(2, 2 + shape[0])[:, None]


@pytest.mark.parametrize("name", ["flux", "sd3"])
def test_masked_moments_are_those_of_the_tokens_that_are_no_padding(name):
    model, calls = exact_model(name)
    recorder = Recorder(model, read_anatomy(model))
    recorder.branches_of_rows, recorder.find_mask = (
        alternate,
        lambda argument: masks_by_row(argument.name, argument.shape),
    )
    path, seen = "transformer_blocks.0.ff_context", []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad(), recorder:
        for call in calls:
            model(**call)
            recorder.settle(0.5)
    handle.remove()
    moments = {key[2]: value for key, value in recorder.profile({}).components.items() if key[0] == path}
    mask, branches = masks_by_row("encoder_hidden_states", seen[0].shape), alternate(len(seen[0]))
    assert set(moments) == set(branches)
    for branch, found in moments.items():
        rows = [row for row, of_row in enumerate(branches) if of_row == branch]
        flat = np.concatenate([output[row][mask[row]].numpy() for output in seen for row in rows])
        assert found.count == len(flat)
        assert close(found.mean, flat.mean(0)) and close(found.variance, flat.var(0))


def test_tokens_of_the_context_are_masked_in_every_forward_and_those_of_the_picture_in_none():
    """Keys of cross-attention are made of text; a picture with as many tokens as the text stays whole."""
    model, calls = exact_model("pixart")
    anatomy = read_anatomy(model)
    wanted = {"attn2.to_k", "ff"}
    recorder = Recorder(model, anatomy, components=lambda component: component.name in wanted)
    rows, num_text = calls[0]["encoder_hidden_states"].shape[:2]
    recorder.find_mask = lambda argument: (
        None if argument.is_picture else torch.arange(argument.shape[1]).repeat(rows, 1) < 2
    )
    with torch.no_grad(), recorder:
        for number, call in enumerate(calls):
            model(**call)
            recorder.settle(0.5)
            counted = recorder.profile({}).components["transformer_blocks.1.attn2.to_k", "input", "conditional"]
            assert counted.count == (number + 1) * rows * 2
    whole = recorder.profile({})
    tokens = whole.sums("transformer_blocks", "hidden_states").tokens.sum()
    assert whole.moments("transformer_blocks.1.ff", "hidden_states").count == tokens
    assert num_text > 2


def test_what_finds_the_streams_is_gone_after_the_first_forward():
    model, calls = exact_model("flux")
    recorder = Recorder(model, read_anatomy(model))

    def num_hooks():
        return [len(block._forward_hooks) for block in (*model.transformer_blocks, *model.single_transformer_blocks)]

    none, double, single = num_hooks(), len(model.transformer_blocks), len(model.single_transformer_blocks)
    with torch.no_grad(), recorder:
        assert num_hooks() == [1, *[0] * (double - 2), 1, 1, *[0] * (single - 2), 1]
        model(**calls[0])
        assert num_hooks() == [0] * (double - 1) + [1] + [0] * (single - 1) + [1]
        recorder.settle(0.5)
    assert num_hooks() == none


def test_what_an_error_left_unsettled_is_not_counted_later():
    model, calls = exact_model("pixart")
    recorder = Recorder(model, read_anatomy(model), keep_means=True)
    with pytest.raises(ZeroDivisionError, match="amid a trajectory"), torch.no_grad(), recorder:
        model(**calls[0])
        raise ZeroDivisionError("amid a trajectory")
    with torch.no_grad(), recorder:
        model(**calls[1])
        recorder.settle(0.5)
        recorder.finish_trajectory()
    rows = len(calls[1]["hidden_states"])
    sums = recorder.profile({}).sums("transformer_blocks", "hidden_states")
    assert sums.samples.sum() == rows and sums.trajectories == rows
    assert np.allclose(sums.mean_cosine, sums.cosine.sum(0), rtol=1e-12)  # a trajectory of this step alone


def test_rows_of_a_forward_may_be_at_times_of_their_own():
    """As in a training loop: each row counts in the bin of its own time."""
    model, calls = exact_model("pixart")
    anatomy = read_anatomy(model)
    together, apart = Recorder(model, anatomy, num_bins=4), Recorder(model, anatomy, num_bins=4)
    shares = (0.1, 0.9)
    assert len(calls[0]["hidden_states"]) == len(shares)
    with torch.no_grad(), together:
        model(**calls[0])
        together.settle(shares)
    for row, share in enumerate(shares):
        apart.branches_of_rows = lambda rows, row=row: [
            "chosen" if number == row else "other" for number in range(rows)
        ]
        with torch.no_grad(), apart:
            model(**calls[0])
            apart.settle(share)
    found = together.profile({}).sums("transformer_blocks", "hidden_states")
    expected = apart.profile({}).streams["transformer_blocks", "hidden_states", "chosen"]
    for field in ("samples", "tokens", "angles", "cosine", "token_cosine", "angle", "residual"):
        assert np.allclose(getattr(found, field), getattr(expected, field), rtol=1e-12), field
    assert found.samples.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("token", ["all", "last"])
def test_counts_are_those_of_samples_tokens_and_angles(token):
    model, calls = exact_model("sd3")
    recorder = Recorder(model, read_anatomy(model), num_bins=2, token=token)
    empty = torch.zeros(2, 20, dtype=torch.bool)

    def find_mask(argument):
        return None if argument.is_picture else empty[: argument.shape[0], : argument.shape[1]].clone()

    recorder.find_mask = find_mask
    with torch.no_grad(), recorder:
        for call in calls:
            model(**call)
            recorder.settle(0.7)
    rows, num_text = calls[0]["encoder_hidden_states"].shape[:2]
    for part, samples, tokens in (("", rows, rows * num_text), (":text", 0, 0), (":padding", rows, rows * num_text)):
        sums = recorder.profile({}).streams["transformer_blocks", "encoder_hidden_states", f"conditional{part}"]
        assert sums.samples.tolist() == [0, samples * len(calls)]
        assert sums.tokens.tolist() == [0, tokens * len(calls)]
        assert sums.angles.tolist() == [0, (tokens if token == "all" else samples) * len(calls)]


def test_states_are_those_that_a_block_was_given_whatever_it_writes_into_them():
    model, calls = exact_model("pixart")
    plain, written_into = Recorder(model, read_anatomy(model)), Recorder(model, read_anatomy(model))
    with torch.no_grad(), plain:
        model(**calls[0])
        plain.settle(0.5)
    forwards = {block: block.forward for block in model.transformer_blocks}
    for block, forward in forwards.items():

        def spoiling(hidden_states, *args, forward=forward, **kwargs):
            output = forward(hidden_states, *args, **kwargs)
            hidden_states.zero_()
            return output

        block.forward = spoiling
    with torch.no_grad(), written_into:
        model(**calls[0])
        written_into.settle(0.5)
    one, other = (r.profile({}).sums("transformer_blocks", "hidden_states") for r in (plain, written_into))
    assert np.array_equal(one.cosine, other.cosine)


def test_of_all_streams_the_first_layer_that_is_not_finite_is_named():
    """Bad text reaches the picture one layer later; it is the text that is named."""
    model = build_tiny_model("sd3")
    call = tiny_call(model)
    with torch.no_grad():
        next(model.context_embedder.parameters()).fill_(float("nan"))
    with (
        torch.no_grad(),
        Recorder(model, read_anatomy(model)),
        pytest.raises(InputError, match=r"the stream encoder_hidden_states that enters transformer_blocks\[0\]"),
    ):
        model(**call)


def _split(path, anatomy):
    stack = next(s.name for s in anatomy.stacks if path.startswith(f"{s.name}."))
    index, _, component = path.removeprefix(f"{stack}.").partition(".")
    return stack, int(index), component


@pytest.mark.parametrize("name", FAMILIES)
def test_a_measured_model_computes_what_it_did(name):
    model = build_tiny_model(name)
    call = tiny_call(model)
    recorder = Recorder(model, read_anatomy(model), keep_means=True)
    with torch.no_grad():
        before, state = model(**call).sample, torch.random.get_rng_state()
        with recorder:
            measured = model(**call).sample
        assert torch.equal(before, measured) and torch.equal(state, torch.random.get_rng_state())
        assert torch.equal(before, model(**call).sample)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_cosine_of_means_is_that_of_states_averaged_over_a_trajectory():
    model, calls = exact_model("sd3")
    anatomy = read_anatomy(model)
    recorder, told = Recorder(model, anatomy, keep_means=True), []
    recorder.on_means = told.append
    kept = reference.KeptActivations(model, anatomy, [])
    with torch.no_grad(), recorder:
        for number, call in enumerate(calls):
            model(**call)
            recorder.settle(0.5)
            if number == 1:
                recorder.finish_trajectory()
        recorder.finish_trajectory()
    kept.remove()
    profile = recorder.profile({})
    for stack, stream in {key[:2] for key in profile.streams}:
        trajectories = [kept.forwards[:2], kept.forwards[2:]]
        found = []
        for forwards in trajectories:
            means = [sum(states) / 2 for states in zip(*(f["states"][stack, stream] for f in forwards), strict=True)]
            rows = range(len(means[0]))
            found += [[[reference.cosine(a[row], b[row]) for b in means] for a in means] for row in rows]
        assert close(profile.similarity(stack, stream, kind="means"), np.mean(found, 0))
    states = [state for states in kept.forwards[0]["states"].values() for state in states]
    assert told == [8 * sum(state.numel() for state in states)]


def test_a_block_that_hands_its_input_through_has_no_influence():
    model = build_tiny_model("pixart").double()
    block = model.transformer_blocks[2]
    with torch.no_grad():
        for name in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
            for parameter in block.get_submodule(name).parameters():
                parameter.zero_()
    call = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in tiny_call(model).items()}
    with torch.no_grad(), Recorder(model, read_anatomy(model)) as recorder:
        model(**call)
        recorder.settle(0.1)
    profile = recorder.profile({})
    influence = profile.influence("transformer_blocks", "hidden_states")
    assert abs(influence[2]) < 1e-14 and influence.argmin() == 2
    assert profile.residual_norm("transformer_blocks", "hidden_states")[2] < 1e-7
    assert np.isnan(profile.angular("transformer_blocks", "hidden_states")[0]).all()


def test_orthogonal_and_opposite_states_have_their_angles():
    from surgery.activations.row_sums import compare_states

    one, other = torch.eye(4)[None, :2], torch.eye(4)[None, 2:]
    sums = compare_states([one, other, -one, torch.zeros_like(one)], {}, last_token=False)["all"]
    assert sums.angle[0, 0].tolist() == [0.0, 1.0, 2.0, 1.0]  # over two tokens; a zero vector has the cosine 0
    assert sums.token_cosine[0, 0].tolist() == [2.0, 0.0, -2.0, 0.0]
    assert sums.cosine[0, 0, 2] == pytest.approx(-1, abs=1e-15)


def test_many_tokens_are_compared_in_parts_with_the_same_result(monkeypatch):
    from surgery.activations import row_sums

    torch.manual_seed(0)
    states = [torch.randn(2, 37, 8, dtype=torch.float64) for _ in range(5)]
    masks = {TEXT: torch.rand(2, 37) < 0.5}
    for last in (False, True):
        whole = row_sums.compare_states(states, masks, last_token=last)
        with monkeypatch.context() as patched:
            patched.setattr(row_sums, "CHUNK_BYTES", 8 * 5 * 2 * 8 * 3)
            parts = row_sums.compare_states(states, masks, last_token=last)
        for name in whole:
            for field in ("tokens", "cosine", "token_cosine", "angle", "angles", "residual"):
                assert np.allclose(getattr(whole[name], field), getattr(parts[name], field), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("index", "place"), [(0, r"enters transformer_blocks\[1\]"), (4, r"leaves transformer_blocks\[4\]")]
)
def test_values_that_are_no_numbers_are_named_by_layer_and_step(index, place):
    model = build_tiny_model("pixart")
    with torch.no_grad():
        next(model.transformer_blocks[index].ff.parameters()).fill_(float("nan"))
    with (
        torch.no_grad(),
        Recorder(model, read_anatomy(model)),
        pytest.raises(InputError, match=rf"{place}.*at timestep"),
    ):
        model(**tiny_call(model))


def test_moments_add_up_whatever_the_grouping():
    rng = np.random.default_rng(0)
    data = rng.normal(1000, 1, (60, 3))
    parts = [Moments(len(p), p.mean(0), ((p - p.mean(0)) ** 2).sum(0)) for p in np.array_split(data, [7, 8, 30])]
    left = ((parts[0] + parts[1]) + parts[2]) + parts[3]
    right = parts[3] + (parts[2] + (parts[1] + parts[0]))
    for moments in (left, right):
        assert moments.count == 60
        assert np.allclose(moments.mean, data.mean(0), rtol=1e-13)
        assert np.allclose(moments.variance, data.var(0), rtol=1e-11)


def test_a_variant_is_refused():
    from surgery.errors import RefusedError
    from surgery.graph.apply import apply
    from surgery.spec.load import read_spec

    model = build_tiny_model("pixart")
    variant = apply(model, read_spec('surgery: v1\noperations: [{skip: "transformer_blocks[1]"}]'))
    with pytest.raises(RefusedError, match="is a variant, whose layers run in another order; measure the original"):
        Recorder(variant, read_anatomy(model))


def test_a_measured_checkpoint_of_a_variant_has_its_layers(tmp_path):
    """A pruned checkpoint is a model like any other."""
    from surgery.publish.pruned_model import compile_checkpoint

    model = build_tiny_model("pixart")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "skip.yaml").write_text('surgery: v1\nmodel: model\noperations: [{skip: "transformer_blocks[1]"}]')
    spec = tmp_path / "skip.yaml"
    folder = compile_checkpoint(spec, tmp_path / "pruned", model=str(tmp_path / "model"), verify="structure")
    pruned = type(model).from_pretrained(folder).eval()
    with torch.no_grad(), Recorder(pruned, read_anatomy(pruned)) as recorder:
        pruned(**tiny_call(pruned))
        recorder.settle(0.5)
    assert recorder.profile({}).find_stack("transformer_blocks").num_blocks == 4
