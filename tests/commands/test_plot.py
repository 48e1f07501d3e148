"""`surgery plot`: what it writes and prints, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from surgery.profiles.layer_profile import Profile, ProfiledStack, no_sums
from surgery.profiles.profile_file import write_profile
from surgery.report.plot_profile import KINDS
from surgery.report.similarity_figures import SimilarityView

STACK = "transformer_blocks"


@pytest.fixture
def profile(made, tmp_path):
    """A profile of twelve layers in planted groups, with an empty bin."""
    path = tmp_path / "p.safetensors"
    write_profile(made.make_profile([(STACK, 12)], starts=(3, 9), num_bins=2, empty_bins=(1,), model="demo"), path)
    return path


@pytest.fixture
def drawn(monkeypatch):
    """Figures are not drawn, only what is asked for is noted: drawing has tests of its own."""
    from surgery.report import plot_profile

    asked = []

    def note(profile, groups, out, *, file_format, themes, view, by_time, force):
        asked.append((file_format, themes, view, by_time))
        return [out / "figure.png"]

    monkeypatch.setattr(plot_profile, "plot_profile", note)
    return asked


def test_figures_are_written_and_groups_and_gaps_are_told(profile, surgery_command, tmp_path):
    result = surgery_command("plot", profile, "--out", tmp_path / "plots", "--theme", "dark")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{STACK}: 3 groups, by the similarity of hidden_states"
    assert lines[1].startswith("  mean silhouette width 0.") and "; layers that drift evenly would have 0." in lines[1]
    del lines[1]
    assert [line.split() for line in lines[1:4]] == [
        ["first", f"{STACK}[0:3]"],
        ["middle", f"{STACK}[3:9]"],
        ["last", f"{STACK}[9:12]"],
    ]
    assert lines[4] == f'  in a spec beside it:  groups: {{middle: "p.safetensors#{STACK}.middle"}}'
    assert lines[5] == "no samples at timesteps 0.5-1.0; hatched in the figures"
    kinds = [kind for kind in KINDS if kind not in ("combined", "similarity_by_time")]
    files = [tmp_path / "plots" / f"{kind}_{STACK}_dark.png" for kind in kinds]
    assert lines[6:] == [str(file) for file in files]
    assert all(file.is_file() for file in files)


def test_json_is_one_document(profile, drawn, surgery_command, tmp_path):
    result = surgery_command("plot", profile, "--out", tmp_path, "--json", "--theme", "both", "--format", "svg")
    document = json.loads(result.stdout)
    assert drawn == [("svg", ("light", "dark"), SimilarityView(), False)]
    assert document["files"] == [str(tmp_path / "figure.png")]
    assert document["groups"][STACK]["groups"] == {"first": [0, 3], "middle": [3, 9], "last": [9, 12]}
    assert (document["empty_bins"], document["not_grouped"]) == ([1], {})


@pytest.mark.usefixtures("drawn")
def test_the_number_of_groups_is_given_or_chosen(profile, surgery_command, tmp_path):
    chosen = surgery_command("plot", profile, "--out", tmp_path, "--groups", "auto").stdout
    assert "3 groups (chosen), by the similarity" in chosen
    four = surgery_command("plot", profile, "--out", tmp_path, "--groups", "4", "--stream", "hidden_states").stdout
    assert "middle-2" in four
    assert f'{{middle_2: "p.safetensors#{STACK}.middle-2?groups=4&stream=hidden_states"}}' in four


@pytest.mark.usefixtures("drawn")
def test_a_stack_that_is_too_short_is_told(made, tmp_path, surgery_command):
    write_profile(made.make_profile([("blocks", 2)]), tmp_path / "p.safetensors")
    result = surgery_command("plot", tmp_path / "p.safetensors", "--out", tmp_path)
    assert result.exit_code == 0
    assert "blocks has 2 blocks with a measured output, which can't be cut into 3 groups" in result.stdout


@pytest.mark.usefixtures("drawn")
def test_a_number_of_groups_that_no_stack_has_is_refused(profile, surgery_command, tmp_path):
    result = surgery_command("plot", profile, "--out", tmp_path, "--groups", "99")
    assert result.exit_code == 1
    assert "has 12 blocks with a measured output, which can't be cut into 99 groups; ask for fewer" in result.stderr


def test_of_a_profile_that_was_read_off_figures_only_its_angles_are_drawn(surgery_command, tmp_path):
    """Nothing that it does not hold is taken for zero: no similarity, no influence, no spans, no groups."""
    profile, plots = tmp_path / "angles.safetensors", tmp_path / "plots"
    sums = no_sums(2, 7)
    sums.angles[...] = 1
    sums.angle[:, np.arange(6), np.arange(1, 7)] = np.linspace(0.1, 0.2, 6)
    write_profile(Profile({}, (ProfiledStack(STACK, 6, ("x",)),), 2, {(STACK, "x", "conditional"): sums}, {}), profile)
    result = surgery_command("plot", profile, "--out", plots)
    assert result.exit_code == 0 and f"no similarities, by which {STACK} could be cut" in result.stdout
    assert [path.name for path in plots.glob("*.png")] == [f"heatmaps_{STACK}.png"]
    for option in ("--by-time", "--no-embedding", "--similarity=tokens"):
        idle = surgery_command("plot", profile, "--out", plots, option)
        assert idle.exit_code == 2 and "the profile holds angular distances alone; leave it out" in idle.stderr
    for by in ("influence", "span", "greedy"):
        refused = surgery_command("suggest", profile, "--remove", "1", "--by", by)
        assert refused.exit_code == 1 and "angular distances of single layers alone" in refused.stderr


def test_files_that_are_no_profiles_are_told(profile, tmp_path, surgery_command):
    absent = surgery_command("plot", tmp_path / "absent.safetensors", "--out", tmp_path)
    assert absent.exit_code == 1 and "absent.safetensors can't be read" in absent.stderr
    (tmp_path / "cut.safetensors").write_bytes(profile.read_bytes()[:-100])
    cut = surgery_command("plot", tmp_path / "cut.safetensors", "--out", tmp_path)
    assert cut.exit_code == 1 and "cut.safetensors can't be read" in cut.stderr
    stream = surgery_command("plot", profile, "--out", tmp_path, "--stream", "text")
    assert (stream.exit_code, stream.stderr) == (1, "the profile has no stream text; it has hidden_states\n")


@pytest.mark.parametrize("options", [["--groups", "1"], ["--groups", "x"], ["--groups", "9" * 99], ["--theme", "blue"]])
def test_wrong_usage_exits_with_two(profile, surgery_command, tmp_path, options):
    assert surgery_command("plot", profile, "--out", tmp_path, *options).exit_code == 2
    assert surgery_command("plot", profile).exit_code == 2


def test_a_part_is_grouped_and_its_reference_gives_the_same_groups(made, tmp_path, surgery_command):
    """The branches' groups differ, and what is printed for a spec is of the branch that was asked for."""
    both = made.make_profile([(STACK, 12)], starts=(3, 9), branches=("conditional",), model="demo")
    other = made.make_profile([(STACK, 12)], starts=(5, 7), branches=("unconditional",), seed=1)
    path = tmp_path / "p.safetensors"
    write_profile(replace(both, streams={**both.streams, **other.streams}), path)
    found = {}
    for part in ("conditional", "unconditional"):
        result = surgery_command("plot", path, "--out", tmp_path / part, "--part", part)
        assert result.exit_code == 0, result.stderr
        assert f'"p.safetensors#{STACK}.middle?part={part}"' in result.stdout
        found[part] = next(line.split()[1] for line in result.stdout.splitlines() if line.split()[0] == "middle")
        spec = tmp_path / f"{part}.yaml"
        spec.write_text(
            f'surgery: v1\nmodel: demo\ngroups: {{heart: "p.safetensors#{STACK}.middle?part={part}"}}\n'
            "operations:\n  - skip: heart\n"
        )
        assert found[part] in surgery_command("check", spec).stdout
    assert found == {"conditional": f"{STACK}[3:9]", "unconditional": f"{STACK}[5:7]"}


@pytest.mark.parametrize(
    ("options", "view", "by_time"),
    [
        ((), SimilarityView("cosine", with_embedding=True), False),
        (("--no-embedding",), SimilarityView("cosine", with_embedding=False), False),
        (("--similarity", "tokens", "--by-time"), SimilarityView("token", with_embedding=True), True),
        (("--similarity", "means", "--embedding"), SimilarityView("means", with_embedding=True), False),
    ],
)
def test_what_is_compared_is_asked_for(profile, drawn, tmp_path, surgery_command, options, view, by_time):
    assert surgery_command("plot", profile, "--out", tmp_path, *options).exit_code == 0
    assert drawn == [("png", ("light",), view, by_time)]


def test_what_was_not_measured_can_not_be_compared(profile, tmp_path, surgery_command):
    plots = tmp_path / "plots"
    means = surgery_command("plot", profile, "--out", plots, "--similarity", "means")
    assert means.exit_code == 1
    assert "holds no means over trajectories of transformer_blocks/hidden_states; measure with --mean-s" in means.stderr
    part = surgery_command("plot", profile, "--out", plots, "--part", "negative")
    assert (part.exit_code, part.stderr) == (1, "the profile has no part negative; it has conditional\n")
    both = surgery_command("plot", profile, "--out", plots, "--similarity", "means", "--by-time")
    assert both.exit_code == 2 and "means over trajectories belong to no timestep" in both.stderr
