"""Groups from profiles: they are the layers that the profile says, or a fault with its place."""

import re

import pytest

from surgery.errors import InputError, SpecError
from surgery.plan import profile_groups
from surgery.plan.names import find_name_faults
from surgery.plan.planned import plan_points, plan_spec
from surgery.plan.profile_groups import find_profile_groups, refuse_other_model, self_contained_text
from surgery.profiles.groups import find_groups
from surgery.profiles.profile_file import write_profile
from surgery.spec.load import read_spec
from surgery.spec.places import Faults

STACK = "transformer_blocks"
REFERENCE = f"p.safetensors#{STACK}.middle"


@pytest.fixture
def pixart(anatomies):
    """28 blocks."""
    return anatomies["pixart"]


@pytest.fixture
def folder(made, tmp_path):
    """With p.safetensors: 28 layers in groups that begin at 0, 4 and 20; and other.safetensors of 12."""
    identity = {"class_name": "PixArtTransformer2DModel"}
    write_profile(made.make_profile([(STACK, 28)], starts=(4, 20), identity=identity), tmp_path / "p.safetensors")
    write_profile(made.make_profile([(STACK, 12)]), tmp_path / "other.safetensors")
    return tmp_path


@pytest.fixture
def spec_of(folder):
    def read(groups, *operations):
        named = "".join(f"  {line}\n" for line in groups)
        return read_spec(
            f"surgery: v1\ngroups:\n{named}operations:\n" + "".join(f"  - {line}\n" for line in operations),
            folder=folder,
        )

    return read


def test_a_group_is_the_layers_that_the_profile_says(spec_of, pixart, anatomies):
    taken = plan_spec(spec_of([f'middle: "{REFERENCE}"'], "skip: middle"), pixart).plan
    written = plan_spec(spec_of([f"middle: {STACK}[4:20]"], "skip: middle"), pixart).plan
    assert taken == written and taken.hash == written.hash


@pytest.mark.parametrize(
    ("operation", "plain"),
    [
        ("parallel: {layers: middle, loops: 2}", "parallel: {layers: 'transformer_blocks[4:20]', loops: 2}"),
        (
            "replace: {component: middle.attn2, with: zero}",
            "replace: {component: 'transformer_blocks[4:20].attn2', with: zero}",
        ),
        ("reverse: transformer/middle", "reverse: transformer_blocks[4:20]"),
        ("skip: both", "skip: [transformer_blocks[4:20], transformer_blocks[0]]"),
        ("skip: [middle, transformer_blocks[2]]", "skip: transformer_blocks[2, 4:20]"),
        ("skip: middle\n    expect: 16", "skip: transformer_blocks[4:20]"),
    ],
)
def test_a_group_stands_wherever_a_selector_can(spec_of, pixart, operation, plain):
    groups = [f"middle: {REFERENCE}", f"both: [middle, '{STACK}[0]']"]
    plain = plain.replace("[transformer_blocks[4:20], transformer_blocks[0]]", "transformer_blocks[0, 4:20]")
    taken = spec_of(groups, operation.replace("transformer_blocks[2]]", "'transformer_blocks[2]']"))
    assert plan_spec(taken, pixart).plan == plan_spec(spec_of(groups, plain), pixart).plan


def test_the_number_of_groups_and_the_stream_can_be_asked_for(spec_of, pixart, made, folder):
    profile = made.make_profile([(STACK, 28)], starts=(4, 20), streams=("hidden_states", "text"), seed=3)
    write_profile(profile, folder / "p.safetensors")
    spec = spec_of(
        [
            f'a: "{REFERENCE}-2?groups=5"',
            f'b: "{REFERENCE}?stream=text"',
            f'c: "p.safetensors#{STACK}.last?groups=auto&stream=hidden_states"',
        ],
        "skip: a",
    )
    faults = Faults("x")
    found = {item.group.name: item.selector for item in find_profile_groups(spec, pixart, faults)}
    assert not faults.found
    assert found["a"] == find_groups(profile, STACK, num_groups=5).selector("middle-2")
    assert found["b"] == find_groups(profile, STACK, stream="text").selector("middle")
    assert found["c"] == find_groups(profile, STACK, stream="hidden_states", num_groups="auto").selector("last")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("absent.safetensors#transformer_blocks.middle", "absent.safetensors can't be read: No such file"),
        ("p.safetensors#blocks.middle", "the profile has no stack blocks; it has transformer_blocks"),
        (
            "p.safetensors#transformer_blocks.midle",
            r'there is no group "midle" in transformer_blocks; there are first, m',
        ),
        ("p.safetensors#transformer_blocks.middle-1", 'there is no group "middle-1"'),
        ("p.safetensors#transformer_blocks.first?stream=text", "the profile has no stream text of transformer_blocks"),
        (
            "p.safetensors#transformer_blocks.first?groups=40",
            "28 blocks with a measured output, which can't be cut into",
        ),
        (
            "other.safetensors#transformer_blocks.middle",
            "another model: it has 12 blocks of transformer_blocks, and .* has 28",
        ),
        ("cut.safetensors#transformer_blocks.middle", "cut.safetensors can't be read"),
        ("text.safetensors#transformer_blocks.middle", "text.safetensors can't be read"),
    ],
)
def test_what_can_not_be_taken_is_a_fault_at_its_place(spec_of, pixart, folder, reference, message):
    (folder / "cut.safetensors").write_bytes((folder / "p.safetensors").read_bytes()[:-64])
    (folder / "text.safetensors").write_text("no profile")
    used = f"skip: [middle, '{STACK}[3]']\n    expect: 17"  # what only follows from the group is not told
    spec = spec_of([f'middle: "{reference}"'], used, "skip: transformer_blocks[99]")
    with pytest.raises(SpecError, match=rf"^spec.yaml:3:11: .*{message}") as caught:
        plan_spec(spec, pixart)
    assert [fault.split(": ")[0] for fault in caught.value.faults] == ["spec.yaml:3:11", "spec.yaml:7:30"]
    assert [fault.split(": ")[0] for fault in lines_of(find_name_faults(spec, pixart))] == ["3:11", "7:30"]


def lines_of(faults):
    return [f"{place.line}:{place.column}: {text}" for place, text in sorted(faults.found)]


def test_a_profile_of_another_model_is_noticed(made, pixart):
    refuse_other_model(made.make_profile([(STACK, 28)]), pixart)
    several = made.make_profile([(STACK, 28), ("blocks", 3)])
    refuse_other_model(several, pixart, STACK)
    for profile, message in (
        (
            made.make_profile([(STACK, 28)], identity={"class_name": "SD3Transformer2DModel"}),
            "another model: a SD3Transformer2DModel, and this is a PixArtTransformer2DModel; measure a profile of this",
        ),
        (made.make_profile([("blocks", 3)]), 'another model: there is no stack "blocks" in PixArtTransformer2DModel'),
        (several, 'another model: there is no stack "blocks" in PixArtTransformer2DModel'),
        (made.make_profile([(STACK, 27)]), f"it has 27 blocks of {STACK}, and this PixArtTransformer2DModel has 28"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            refuse_other_model(profile, pixart)


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_the_published_text_has_the_layers_and_needs_no_profile(spec_of, pixart, tmp_path_factory, quote):
    spec = spec_of([f"middle: {quote}{REFERENCE}{quote}", f"flow: {quote}{REFERENCE}{quote}  # mine"], "skip: middle")
    found = find_profile_groups(spec, pixart, Faults("x"))
    text = self_contained_text(spec, found)
    assert text.splitlines()[2:4] == [
        f'  middle: "{STACK}[4:20]"  # from {REFERENCE}',
        f'  flow: "{STACK}[4:20]"  # mine',
    ]
    elsewhere = read_spec(text, folder=tmp_path_factory.mktemp("empty"))
    assert elsewhere.profile_groups == () and plan_spec(elsewhere, pixart).plan == plan_spec(spec, pixart).plan


def test_a_folder_of_the_profile_is_not_published(spec_of, pixart, folder):
    (folder / "private").mkdir()
    (folder / "p.safetensors").rename(folder / "private" / "p.safetensors")
    spec = spec_of([f'middle: "{folder}/private/{REFERENCE}"'], "skip: middle")
    text = self_contained_text(spec, find_profile_groups(spec, pixart, Faults("x")))
    assert "private" not in text and f"# from {REFERENCE}" in text


def test_a_sweep_reads_its_profiles_once(spec_of, pixart, monkeypatch):
    read, read_profile = [], profile_groups._read
    monkeypatch.setattr(profile_groups, "_read", lambda path: (read.append(path), read_profile(path))[1])
    spec = spec_of([f'middle: "{REFERENCE}"'], "skip: middle")
    vary = "vary: {n: [2, 3, 4]}\noperations:\n  - repeat: {layers: 'transformer_blocks[0]', times: '{n}'}"
    sweep = read_spec(spec.text.replace("operations:", vary, 1), folder=spec.folder)
    assert len(plan_points(sweep, pixart)) == 3 and len(read) == 1
