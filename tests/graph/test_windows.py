"""Windows: a spec whose operations hold within timesteps, steps or branches, in pipelines of real classes."""

import functools
import inspect

import pytest
import torch
from built_once import building_once
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Img2ImgPipeline,
)
from peft import LoraConfig
from PIL import Image
from pipelines import build_pipeline
from windows_by_hand import Edit, draw_by_hand, random_edits, spec_of

import surgery
from surgery.errors import InputError, RefusedError
from surgery.pipelines.conditions import is_class_conditional
from surgery.plan.planned import plan_spec_file
from surgery.publish.graph_folder import write_artefact
from surgery.spec.load import read_spec


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_and_traced_once():
    """A forward is the same in all windows; how it is traced is seen in test_variant.py and test_oracle.py."""
    with building_once():
        yield


NAMES = ("demo", "sd3", "flux", "auraflow", "dit")
IP_ADAPTER = ("image_encoder", "feature_extractor")  # components of SD3 that its ControlNet pipeline may lack
SPLIT = 1e-6  # relative: matrix products over half of a batch add up in another order


@functools.cache
def pipeline_of(name):
    return build_pipeline(name)


def draw(pipe, call, *, count=2):
    """What a pipeline draws, as numbers."""
    prompts = [1, 2] if is_class_conditional(pipe) else ["a red apple", "two blue birds"]
    noise = [torch.Generator().manual_seed(number) for number in range(count)]
    images = pipe(prompts[:count], generator=noise, output_type="pt", **call).images
    return torch.as_tensor(images)


def variant_of(pipe, text):
    return surgery.apply(pipe, read_spec(text))


def assert_same(found, expected, *, is_split):
    if is_split:
        assert (found - expected).abs().max() <= SPLIT * expected.abs().max()
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
@pytest.mark.parametrize("name", NAMES)
def test_a_window_is_the_edit_by_hand_at_every_step(name, seed):
    """30 random specs against ModuleLists that are swapped before each call."""
    pipe, call = pipeline_of(name)
    edits = random_edits(name, 100 * NAMES.index(name) + seed)
    expected = draw_by_hand(name, pipe, edits, lambda each: draw(each, call))
    found = draw(variant_of(pipe, spec_of(name, edits)), call)
    assert_same(found, expected, is_split=any(edit.branch for edit in edits))


def test_the_law_fails_when_an_edge_is_shifted_by_a_step(monkeypatch):
    pipe, call = pipeline_of("sd3")
    edits = [Edit("skip", (1,), (0.0, 0.7), None, None)]
    expected = draw_by_hand("sd3", pipe, edits, lambda each: draw(each, call))
    monkeypatch.setattr("surgery.plan.atoms.EDGE", 0.2)
    assert not torch.equal(draw(variant_of(pipe, spec_of("sd3", edits)), call), expected)


SKIP = '  - {{skip: "transformer_blocks[1]", when: {{{}}}}}'


def spec(*windows):
    """A skip of the same layer within each window."""
    return "\n".join(["surgery: v1", "operations:", *(SKIP.format(window) for window in windows)]) + "\n"


ALWAYS = 'surgery: v1\noperations:\n  - skip: "transformer_blocks[1]"\n'


def test_windows_run_for_samplers_that_call_the_model_twice_a_step():
    """Heun's two calls of a step are of one step, the second at the next timestep."""
    pipe, call = pipeline_of("sd3")
    pipe = copy_with(pipe, FlowMatchHeunDiscreteScheduler())
    for edit in (Edit("skip", (1,), None, (1, 2), None), Edit("skip", (2,), (0.4, 0.9), None, None)):
        expected = draw_by_hand("sd3", pipe, [edit], lambda each: draw(each, call), calls_a_step=2)
        assert torch.equal(draw(variant_of(pipe, spec_of("sd3", [edit])), call), expected)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # of the schedulers' own NumPy
@pytest.mark.parametrize("scheduler", [HeunDiscreteScheduler, KDPM2DiscreteScheduler])
def test_windows_run_for_second_order_samplers_of_noise_predictors(scheduler):
    pipe, call = pipeline_of("dit")
    pipe = copy_with(pipe, scheduler.from_config(pipe.scheduler.config))
    edit = Edit("skip", (1,), None, (1, 2), None)
    expected = draw_by_hand("dit", pipe, [edit], lambda each: draw(each, call), calls_a_step=2)
    assert torch.equal(draw(variant_of(pipe, spec_of("dit", [edit])), call), expected)


@pytest.mark.parametrize(
    "edit", [Edit("skip", (1,), None, (2, 3), None), Edit("skip", (1,), None, None, "conditional")]
)
def test_windows_run_for_a_sampler_that_repeats_timesteps(edit):
    """PNDM is at the same timestep in two steps, and does not say in which."""
    pipe, call = pipeline_of("dit")
    pipe = copy_with(pipe, PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True))
    expected = draw_by_hand("dit", pipe, [edit], lambda each: draw(each, call))
    assert_same(draw(variant_of(pipe, spec_of("dit", [edit])), call), expected, is_split=edit.branch is not None)


def test_windows_run_for_karras_sigmas_of_which_two_round_to_one_timestep():
    """The steps differ, though their timesteps do not."""
    pipe, call = pipeline_of("dit")
    scheduler = DPMSolverMultistepScheduler(num_train_timesteps=100, use_karras_sigmas=True)
    pipe, call = copy_with(pipe, scheduler), {**call, "num_inference_steps": 20}
    scheduler.set_timesteps(20)
    times = scheduler.timesteps.tolist()
    at = next(step for step in range(1, 20) if times[step] == times[step - 1])
    edit = Edit("skip", (1,), None, (at, at + 1), None)
    expected = draw_by_hand("dit", pipe, [edit], lambda each: draw(each, call))
    assert torch.equal(draw(variant_of(pipe, spec_of("dit", [edit])), call), expected)


def test_a_sampler_that_counts_in_noise_levels_is_refused():
    """Its timesteps go from 1 to 0, of 1,000: all would be next to clean."""
    pipe, call = pipeline_of("dit")
    pipe = copy_with(pipe, IPNDMScheduler.from_config(pipe.scheduler.config))
    with pytest.raises(InputError, match=r"IPNDMScheduler has timesteps up to 1, where training has 1,000"):
        draw(variant_of(pipe, spec("timesteps: [0.0, 0.5]")), call)


@pytest.mark.parametrize("branch", ["conditional", "unconditional"])
def test_residuals_of_a_controlnet_are_split_by_rows_and_tell_no_branch(branch):
    """As many residuals as rows; they follow from the noise, so that no two rows have the same."""
    base, call = pipeline_of("sd3")
    names = inspect.signature(SD3ControlNetModel).parameters
    own = {name: value for name, value in base.transformer.config.items() if name in names}
    torch.manual_seed(0)
    controlnet = SD3ControlNetModel(**{**own, "num_layers": 4}).eval()
    with torch.no_grad():
        for value in controlnet.parameters():  # some begin at zero
            value.add_(0.05 * torch.randn(value.shape))
    components = {name: base.components[name] for name in base.components if name not in IP_ADAPTER}
    pipe = StableDiffusion3ControlNetPipeline(**components, controlnet=controlnet)
    pipe.set_progress_bar_config(disable=True)
    given = {**call, "control_image": Image.new("RGB", (64, 64), "teal")}

    def draw_from_seed(each):
        torch.manual_seed(5)  # the VAE draws the picture's latents from the global generator
        return draw(each, given)

    edit = Edit("skip", (1,), None, None, branch)
    expected = draw_by_hand("sd3", pipe, [edit], draw_from_seed)
    assert_same(draw_from_seed(variant_of(pipe, spec_of("sd3", [edit]))), expected, is_split=True)


def test_another_transformer_that_runs_in_a_callback_is_told_nothing():
    """The step of a pipeline is that of its own transformer."""
    pipe, call = pipeline_of("sd3")
    other = surgery.apply(pipe.transformer, read_spec(spec('steps: "0:2"')))

    def run_other(*_):
        other(torch.zeros(1, 4, 8, 8))

    with pytest.raises(InputError, match="a transformer alone is in no step of a sampler"):
        draw(variant_of(pipe, spec('steps: "0:2"')), {**call, "callback_on_step_end": run_other})


def test_a_run_that_starts_midway_is_where_its_scheduler_is():
    """Image to image: the first step that is run is step 0, its timestep that of the noised picture."""
    base, call = pipeline_of("sd3")
    pipe = StableDiffusion3Img2ImgPipeline(**base.components)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.new("RGB", (64, 64), "teal")
    midway = {**call, "image": [picture, picture], "strength": 0.5, "num_inference_steps": 4}
    for edit in (Edit("skip", (1,), (0.2, 0.5), None, None), Edit("skip", (2,), None, (1, 2), None)):
        expected = draw_by_hand("sd3", pipe, [edit], lambda each: draw(each, midway), first=2)
        found = draw(variant_of(pipe, spec_of("sd3", [edit])), midway)
        assert torch.equal(found, expected)
        assert not torch.equal(found, draw(pipe, midway))


def test_custom_sigmas_are_where_the_windows_look():
    pipe, call = pipeline_of("flux")
    custom = {**call, "sigmas": [1.0, 0.35, 0.1]}
    edit = Edit("skip", (1,), (0.3, 0.6), None, None)
    expected = draw_by_hand("flux", pipe, [edit], lambda each: draw(each, custom))
    assert torch.equal(draw(variant_of(pipe, spec_of("flux", [edit])), custom), expected)


def test_separate_calls_of_the_branches_are_told_apart():
    """Flux with true guidance runs its transformer twice a step, once for each branch."""
    pipe, call = pipeline_of("flux")
    guided = {**call, "true_cfg_scale": 3.0, "negative_prompt": ["blurred", "blurred"]}
    both = variant_of(pipe, ALWAYS)
    one, other = (variant_of(pipe, spec(f"branch: {name}")) for name in ("conditional", "unconditional"))
    pictures = [draw(each, guided) for each in (pipe, both, one, other)]
    assert all(not torch.equal(a, b) for n, a in enumerate(pictures) for b in pictures[:n])
    halves = variant_of(pipe, spec("branch: conditional", "branch: unconditional"))
    assert torch.equal(draw(halves, guided), pictures[1])


def test_weights_are_shared_and_only_what_no_atom_runs_is_gone():
    pipe, call = pipeline_of("sd3")
    text = spec("timesteps: [0.0, 0.5]") + '  - skip: "transformer_blocks[2]"\n'
    variant = variant_of(pipe, text)
    draw(variant, call)
    assert [name for name, _ in variant.transformer.transformer_blocks.named_children()] == ["0", "1", "3", "4"]
    own = dict(pipe.transformer.named_parameters())
    assert all(value.data_ptr() == own[name].data_ptr() for name, value in variant.transformer.named_parameters())
    assert type(variant).__name__ == "StableDiffusion3Pipeline"
    assert isinstance(variant.transformer, type(pipe.transformer))


def test_a_replaced_component_steps_aside_in_its_window_only():
    pipe, call = pipeline_of("sd3")
    text = 'surgery: v1\noperations:\n  - {{replace: {{component: "transformer_blocks[1].attn", with: zero}}{}}}\n'
    always, first, later = (
        draw(variant_of(pipe, text.format(when)), call)
        for when in ("", ", when: {steps: '0:2'}", ", when: {steps: '2:'}")
    )
    assert not torch.equal(always, first)
    assert not torch.equal(first, later)
    whole = variant_of(pipe, text.format(", when: {timesteps: [0, 1]}"))
    assert torch.equal(draw(whole, call), always)


def test_what_reaches_the_variant_reaches_every_atom():
    """A LoRA, a cast and a hook; with `train()` it learns in the atom that a row is in."""
    pipe, call = pipeline_of("sd3")
    variant = variant_of(pipe, spec("timesteps: [0.6, 1.0]"))
    before = draw(variant, call)
    calls = []
    handle = variant.transformer.transformer_blocks[0].register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(draw(variant, call), before)
    assert len(calls) == call["num_inference_steps"]
    handle.remove()
    variant.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    plain = surgery.apply(pipe, read_spec(spec("timesteps: [0.6, 1.0]")))
    assert not torch.equal(draw(variant, call), before)
    assert torch.equal(draw(plain, call), before)
    variant.transformer.to(torch.bfloat16)
    assert variant.transformer.transformer_blocks[1].attn.to_k.weight.dtype == torch.bfloat16


def test_a_transformer_alone_stands_where_its_timesteps_are_and_rows_may_differ():
    """What the pipeline taught holds for the transformer: each row of a batch runs in its own window."""
    pipe, call = pipeline_of("sd3")
    draw(variant_of(pipe, spec("timesteps: [0.6, 1.0]")), call)  # learns how the family is given its timesteps
    given = {}
    handle = pipe.transformer.register_forward_pre_hook(lambda _, args, kwargs: given.update(kwargs), with_kwargs=True)
    draw(pipe, call)
    handle.remove()
    given = {**given, "timestep": torch.tensor([900.0, 100.0, 700.0, 500.0]), "return_dict": False}
    variant = surgery.apply(pipe.transformer, read_spec(spec("timesteps: [0.6, 1.0]")))
    skipped = surgery.apply(pipe.transformer, read_spec(ALWAYS))
    with torch.no_grad():
        found, always, never = (model(**given)[0] for model in (variant, skipped, pipe.transformer))
    expected = torch.stack([always[0], never[1], always[2], never[3]])
    assert_same(found, expected, is_split=True)
    with torch.no_grad(), surgery.standing_at(timestep=0.1):
        assert torch.equal(variant(**given)[0], never)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ('steps: "0:2"', "a transformer alone is in no step of a sampler"),
        ("branch: conditional", "nothing says of which branch these rows are"),
    ],
)
def test_a_transformer_alone_refuses_what_it_cannot_know(window, message):
    pipe, _ = pipeline_of("auraflow")
    variant = surgery.apply(
        pipe.transformer, read_spec(spec(window).replace("transformer_blocks", "joint_transformer_blocks"))
    )
    with pytest.raises(InputError, match=message):
        variant(torch.zeros(1, 4, 8, 8), torch.zeros(1, 20, 12), torch.tensor([0.5]))


def test_steps_beyond_the_sampler_and_a_branch_without_guidance_are_told():
    pipe, call = pipeline_of("sd3")
    with pytest.raises(InputError, match=r"go up to step 5 .* the sampler takes 3 steps; write steps within 0:3"):
        draw(variant_of(pipe, spec('steps: "2:5"')), call)
    with pytest.raises(InputError, match=r"is called without guidance, so that there is none"):
        draw(variant_of(pipe, spec("branch: unconditional")), {**call, "guidance_scale": 1.0})
    alone = variant_of(pipe, spec("branch: conditional"))
    assert torch.equal(
        draw(alone, {**call, "guidance_scale": 1.0}), draw(variant_of(pipe, ALWAYS), {**call, "guidance_scale": 1.0})
    )


def test_a_branch_is_not_known_of_a_pipeline_that_encodes_no_prompts():
    """How the branches lie is found out with prompts, which nothing can encode."""
    pipe, call = pipeline_of("demo")
    variant = variant_of(pipe, spec("branch: conditional"))
    variant.register_modules(text_encoder=None)
    with pytest.raises(
        InputError, match=r"PixArtAlphaPipeline has no text encoder here, .*; load it with its text enc"
    ):
        variant("a red apple", **call)


@pytest.mark.parametrize("window", ["timesteps: [0.5, 1]", 'steps: "0:2"', "branch: conditional"])
def test_a_pipeline_made_of_the_parts_of_another_runs_the_windows_or_refuses(window):
    pipe, call = pipeline_of("demo")
    variant = variant_of(pipe, spec(window))
    expected = draw(variant, call)
    assert torch.equal(draw(type(variant)(**variant.components), call), expected)
    stock = type(pipe).from_pipe(variant, transformer=variant.transformer)
    if "timesteps" in window:
        assert torch.equal(draw(stock, call), expected)
        return
    with pytest.raises(InputError, match=r"run it in the pipeline that surgery\.apply returns"):
        draw(stock, call)


def test_gradient_checkpointing_of_a_component_with_a_window_is_refused():
    pipe, _ = pipeline_of("sd3")
    operation = 'replace: {component: "transformer_blocks[1].attn", with: zero}'
    variant = variant_of(pipe, f'surgery: v1\noperations:\n  - {{{operation}, when: {{steps: "0:2"}}}}\n')
    component = variant.transformer.transformer_blocks[1].attn
    with pytest.raises(RefusedError, match="turn gradient checkpointing off"):
        component(torch.zeros(1, 4, 8))


def copy_with(pipe, scheduler):
    """The same pipeline with another scheduler."""
    other = type(pipe)(**{**pipe.components, "scheduler": scheduler})
    other.set_progress_bar_config(disable=True)
    return other


def test_a_folder_of_a_graph_carries_windows(tmp_path):
    """Compiled, its plan read back, and loaded onto its base model: the same pictures."""
    path = tmp_path / "late.yaml"
    operation = 'skip: "transformer_blocks[2:5]", when: {timesteps: [0.4, 1.0], branch: unconditional}'
    path.write_text(f"surgery: v1\nmodel: demo\noperations:\n  - {{{operation}}}\n")
    pipe, call = pipeline_of("demo")
    planned = plan_spec_file(path)
    write_artefact(
        tmp_path / "out", spec=planned.spec, source=planned.source, anatomy=planned.anatomy, plan=planned.plan
    )
    loaded = surgery.load_variant(tmp_path / "out")
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(draw(loaded, call), draw(surgery.apply(pipe, path), call))
    source = (tmp_path / "out" / "forward.py").read_text()
    assert source.count("\ndef forward(self") == 2
    assert "# when timesteps 0.4:1, branch unconditional" in source
