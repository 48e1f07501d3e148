"""`surgery spectrum`: the model beside its null, variants beside their controls; written whole, or not at all."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import surgery
from surgery.anatomy.sources import find_source
from surgery.pipelines.pretrained import load_pretrained
from surgery.spectra.trajectory import LATENTS, PICTURES, PREDICTED
from surgery.written import MARKER

PROMPTS = ("-p", "red apple", "-p", "blue heart")
SMALL = ("--steps", "2", "--guidance-scale", "2", "--height", "16", "--width", "16")
BINNING = ("--call", "use_resolution_binning=false", "--call", "clean_caption=false")
CALL = {
    **{"height": 16, "width": 16, "use_resolution_binning": False, "clean_caption": False},
    **{"num_inference_steps": 2, "guidance_scale": 2.0},
}
SPEC = """surgery: v1
model: {model}
vary:
  layer: [1, 3]
operations:
  - skip: transformer_blocks[{{layer}}]
"""


@pytest.fixture(scope="module")
def analyse(surgery_command):
    def run(*arguments):
        return surgery_command("spectrum", *arguments, *SMALL, *BINNING)

    return run


@pytest.fixture(scope="module")
def analysed(tmp_path_factory, pipeline, analyse):
    """A sweep over two layers, two prompts in batches of one: the folder, and the JSON document."""
    folder = tmp_path_factory.mktemp("spectrum")
    spec = folder / "each.yaml"
    spec.write_text(SPEC.format(model=pipeline))
    result = analyse(spec, *PROMPTS, "--batch-size", "1", "--theme", "both", "--out", folder / "out", "--json")
    assert result.exit_code == 0, result.stderr
    return folder / "out", json.loads(result.stdout)


def test_the_folder_holds_numbers_arrays_and_figures_and_nothing_else(analysed):
    out, document = analysed
    figures = [f"{kind}{dark}.png" for dark in ("", "_dark") for kind in ("bands", "spectra", "settled", "damage")]
    numbers = ["spectrum.json", "spectrum.safetensors", MARKER]
    assert sorted(path.name for path in out.iterdir()) == sorted([*figures, *numbers])
    assert document["files"] == [str(out / name) for name in figures]
    assert json.loads((out / "spectrum.json").read_text()) == {k: v for k, v in document.items() if k != "files"}


def test_latents_and_pictures_are_in_the_same_bands(analysed):
    """Latents of side 8 for pictures of 16 hold the octaves up to 4 cycles; the last is told to be beyond them."""
    _, document = analysed
    assert document["bands"]["names"] == ["0-2", "2-4", "4-8"]
    assert document["views"][LATENTS]["bands"] == document["views"][PREDICTED]["bands"] == ["0-2", "2-4"]
    assert document["views"][LATENTS]["beyond_nyquist"] == ["4-8"]
    assert document["views"][PICTURES]["bands"] == ["0-2", "2-4", "4-8"]


def test_model_and_null_end_alike(analysed):
    """The null is the model's own end noised forward: at the end they differ in nothing, and before it they do."""
    out, document = analysed
    assert document["shares"][0] > 0.9 and document["shares"][-1] == 0
    for view in document["views"].values():
        mean = np.array(view["log2_model_over_null"]["mean"])
        assert np.abs(mean[-1]).max() < 1e-5 < np.abs(mean[0]).max()
    arrays = load_file(out / "spectrum.safetensors")
    assert arrays["pictures/power"].shape == arrays["pictures/null"].shape == (2, 3, 5)


def test_rows_are_the_points_of_the_sweep_and_two_controls(analysed):
    """The edit that changes nothing damages nothing, to the bit; other noise and the edits do."""
    _, document = analysed
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["each layer=1", "each layer=3", "no-op", "reseeded"]
    assert {row["kind"] for row in document["rows"][:2]} == {"variant"}
    for view in (LATENTS, PICTURES):
        assert np.all(np.array(rows["no-op"][view]["difference"]["mean"]) == 0)
        for name in ("each layer=1", "each layer=3", "reseeded"):
            assert np.all(np.array(rows[name][view]["difference"]["mean"]) > 0), name
    assert rows["each layer=1"][PICTURES]["detail_minus_layout"]["num"] == 2


def test_the_function_is_the_command(analysed, pipeline):
    """And batches make no difference but of rounding."""
    out, _ = analysed
    pipe = load_pretrained(find_source(str(pipeline)), dtype="auto", device="cpu")
    pipe.set_progress_bar_config(disable=True)
    found = surgery.spectrum(pipe, ["red apple", "blue heart"], call=CALL)
    arrays = load_file(out / "spectrum.safetensors")
    for view in found.trajectories.views:
        np.testing.assert_allclose(view.power, arrays[f"{view.name}/power"], rtol=1e-3, atol=1e-7)
    assert not found.damages
    with pytest.raises(
        surgery.InputError, match="there is no prompt; give at least one, and two or more for intervals"
    ):
        surgery.spectrum(pipe, [], call=CALL)


def test_a_single_prompt_is_told_to_have_no_interval_and_latents_alone_need_no_decoder(tmp_path, pipeline, analyse):
    out = tmp_path / "out"
    result = analyse(pipeline, "-p", "red apple", "--no-pictures", "--format", "svg", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "N = 1: give two prompts or more for intervals" in result.stdout
    assert sorted(json.loads((out / "spectrum.json").read_text())["views"]) == [LATENTS, PREDICTED]
    assert "<svg" in (out / "bands.svg").read_text() and not (out / "damage.svg").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bands", "2,16"), "a band ends at 16 cycles per picture, and the pictures have 8 at most"),
        (
            ("--bands", "9"),
            "9 octaves do not fit below the Nyquist limit of 8 cycles per picture; write --bands 1 to 3",
        ),
        (("--bands", "wide"), '--bands takes a number of octaves, or upper edges in cycles per picture, not "wide"'),
        (
            ("--bands", "5,8"),
            "latents of side 8 have 4 cycles per picture at most, and the lowest band ends at 5; write",
        ),
        (("--call", "strength=1"), "PixArtAlphaPipeline takes no argument strength"),
    ],
)
def test_what_can_not_be_done_is_said_and_leaves_nothing(tmp_path, pipeline, analyse, options, message):
    result = analyse(pipeline, "-p", "red apple", *options, "--out", tmp_path / "out")
    assert result.exit_code == 1 and message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_faults_of_specs_and_bare_transformers_are_told_before_anything_is_drawn(tmp_path, pipeline, analyse):
    spec = tmp_path / "faulty.yaml"
    spec.write_text(f"surgery: v1\nmodel: {pipeline}\noperations:\n  - skip: transformer_blocks[5]\n")
    result = analyse(spec, "-p", "red apple", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "faulty.yaml:4:30: there is no layer 5" in result.stderr
    result = analyse(pipeline / "transformer", "-p", "red apple", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "is a bare transformer; " in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["faulty.yaml"]


def test_what_is_there_is_kept_but_for_the_commands_own_with_force(tmp_path, pipeline, analyse):
    out = tmp_path / "out"
    out.mkdir()
    (out / "bands.png").write_text("mine")
    arguments = (pipeline, "-p", "red apple", "--no-pictures", "--out", out)
    result = analyse(*arguments)
    assert result.exit_code == 1 and "is not empty; give another folder, or --force" in result.stderr
    result = analyse(*arguments, "--force")
    assert result.exit_code == 1 and "bands.png is not what `surgery spectrum` wrote there" in result.stderr
    assert [path.name for path in out.iterdir()] == ["bands.png"] and (out / "bands.png").read_text() == "mine"
