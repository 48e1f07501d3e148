"""`surgery check`: valid specs are shown, all faults of all specs are told, each with its place."""

import json

import pytest

from surgery.plan.backends import WINDOWS

SKIP = 'skip: "transformer_blocks[1]"'
THREE_FAULTS = """surgery: v1
model: MODEL
operations:
  - skip: "transformer_blocks[9]"
  - reverse: "blocks[0:2]"
  - replace: {component: "transformer_blocks[0].attn9", with: zero}
"""


@pytest.fixture
def faulty(tmp_path, pipeline):
    path = tmp_path / "faulty.yaml"
    path.write_text(THREE_FAULTS.replace("MODEL", str(pipeline)))
    return path


def test_a_valid_spec_shows_its_plan_and_what_it_saves(write_spec, surgery_command):
    spec = write_spec("skip.yaml", SKIP)
    result = surgery_command("check", spec)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{spec}: valid"
    assert lines[2].split() == ["transformer_blocks[5]", "0", "2:5", "without", "1"]
    assert lines[3].startswith("  saves ")
    assert lines[4:] == ["  graph yes", "  checkpoint yes"]


def test_json_is_one_document_of_plan_and_cost(write_spec, surgery_command):
    spec = write_spec("skip.yaml", SKIP)
    result = surgery_command("check", spec, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert document["spec"] == str(spec)
    assert document["plan"]["class"] == "PixArtTransformer2DModel"
    assert document["cost"]["parameters"]["after"] < document["cost"]["parameters"]["before"]
    assert document["cost"]["block_flops_share"] == pytest.approx(4 / 5)


def test_three_faults_are_three_messages_with_their_places(faulty, surgery_command):
    result = surgery_command("check", faulty)
    messages = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, len(messages)) == (1, "", 3)
    assert messages[0].startswith(f"{faulty}:4:") and "there is no layer 9" in messages[0]
    assert messages[1].startswith(f"{faulty}:5:") and '"blocks"' in messages[1]
    assert messages[2].startswith(f"{faulty}:6:") and '"attn9"' in messages[2]


def test_faults_of_the_language_and_names_the_model_lacks_are_told_in_one_go(write_spec, surgery_command):
    spec = write_spec("both.yaml", 'skip: "transformer_blocks[9]"\n  - skp: "blocks[0]"\n  - reverse: "blocks[0:2]"')
    messages = surgery_command("check", spec).stderr.splitlines()
    assert [message.removeprefix(f"{spec}:").split(": ")[0] for message in messages] == ["4:31", "5:5", "5:10", "6:14"]
    assert "there is no layer 9" in messages[0] and 'did you mean "skip"?' in messages[1]
    absent = surgery_command("check", spec, "--model", "/nowhere/at/all").stderr.splitlines()
    assert absent == [messages[1]]


def test_json_of_a_faulty_spec_holds_its_faults(faulty, surgery_command):
    result = surgery_command("check", faulty, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"spec": str(faulty), "faults": result.stderr.splitlines()}


def test_one_bad_spec_among_several_spoils_the_status_only(faulty, write_spec, surgery_command):
    specs = [write_spec("one.yaml", SKIP), faulty, write_spec("two.yaml")]
    result = surgery_command("check", *specs)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{specs[0]}: valid, saves {saved_by(specs[0], surgery_command)}, 80% of the FLOPs; graph yes; checkpoint yes",
        f"{specs[2]}: valid, saves 0.0%, 100% of the FLOPs; graph yes; checkpoint yes",
        "3 specs, 1 with faults",
    ]
    assert len(result.stderr.splitlines()) == 3
    documents = json.loads(surgery_command("check", *specs, "--json").stdout)
    assert [document["spec"] for document in documents] == [str(spec) for spec in specs]
    assert ["faults" in document for document in documents] == [False, True, False]


def saved_by(spec, surgery_command):
    cost = json.loads(surgery_command("check", spec, "--json").stdout)["cost"]["parameters"]
    return f"{100 * (1 - cost['after'] / cost['before']):.1f}%"


def test_folders_stand_for_the_specs_in_and_below_them(tmp_path, write_spec, surgery_command):
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    names = ["b.yaml", "a.yml", "deep/c.yaml"]
    for name in [*names, "deep/.hidden/d.yaml"]:
        write_spec(name, SKIP)
    (tmp_path / "notes.txt").write_text("no spec")
    result = surgery_command("check", tmp_path, tmp_path / "b.yaml")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [str(tmp_path / name) for name in sorted(names)]
    assert lines[-1] == "3 specs, none with faults"
    assert isinstance(json.loads(surgery_command("check", tmp_path / "deep", "--json").stdout), list)


def test_a_folder_without_specs_is_told(tmp_path, surgery_command):
    result = surgery_command("check", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"the folder {tmp_path} holds no spec; a spec is a file named *.yaml or *.yml\n"


def test_the_language_alone_can_be_checked_without_the_model(write_spec, faulty, surgery_command):
    good = write_spec("good.yaml", SKIP, model="owner/never-downloaded")
    result = surgery_command("check", good, faulty, "--language-only")
    assert result.exit_code == 0  # the faults of the other are seen by its model only
    assert result.stdout.splitlines()[0] == f"{good}: valid language; not checked against a model"
    bad = write_spec("bad.yaml", "skp: x", model="owner/never-downloaded")
    assert 'did you mean "skip"?' in surgery_command("check", bad, "--language-only").stderr


def test_a_second_transformer_that_is_not_there_is_a_fault(write_spec, surgery_command):
    spec = write_spec("second.yaml", "skip: transformer_2/transformer_blocks[0]")
    result = surgery_command("check", spec)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{spec}:4:11: there is no transformer_2: the model has one transformer; leave")


def test_windows_are_shown_with_what_they_leave_out_of_a_trajectory(surgery_command, tmp_path):
    """Over the noise range, or over the steps of the model's own sampler, which differ."""
    spec = tmp_path / "late.yaml"
    when = "{timesteps: [0.75, 1.0], branch: conditional}"
    spec.write_text(f"surgery: v1\nmodel: demo\noperations:\n  - {{skip: 'transformer_blocks[0:6]', when: {when}}}\n")
    lines = surgery_command("check", spec).stdout.splitlines()
    assert "  when timesteps 0.75:1, branch conditional" in lines
    assert lines[-1] == f"  checkpoint no: {WINDOWS}"
    assert "runs 93.8% of the blocks' executions, over the noise range" in lines[-3]
    document = json.loads(surgery_command("check", spec, "--steps", 4, "--json").stdout)
    assert document["cost"]["block_executions"] == {"before": 12, "after": pytest.approx(12 * (1 - 1 / 16))}
    assert [window["when"] for window in document["plan"]["windows"]][1] == ["timesteps 0.75:1, branch conditional"]
    spec.write_text(spec.read_text().replace(when, '{steps: "0:1"}'))
    assert "give --steps" in surgery_command("check", spec).stdout
    assert "87.5% of the blocks' executions, in 4 steps" in surgery_command("check", spec, "--steps", 4).stdout
    drawn = surgery_command("check", spec, "--show", "graph").stdout
    assert "when steps 0:1\n  clean 0 ██████████" in drawn


def test_a_plan_that_only_the_graph_can_express_says_why(write_spec, surgery_command):
    spec = write_spec("parallel.yaml", 'parallel: "transformer_blocks[1:3]"')
    reason = "transformer_blocks[1:3] run in parallel, and a stock class runs its blocks one after the other"
    assert surgery_command("check", spec).stdout.splitlines()[-1] == f"  checkpoint no: {reason}"
    document = json.loads(surgery_command("check", spec, "--json").stdout)
    assert document["backends"] == {
        "graph": {"answer": "yes", "reasons": []},
        "checkpoint": {"answer": "no", "reasons": [reason]},
    }


def test_the_blocks_can_be_drawn_as_text_and_as_a_picture(write_spec, surgery_command, tmp_path):
    spec = write_spec("skip.yaml", SKIP)
    lines = surgery_command("check", spec, "--show", "graph").stdout.splitlines()
    assert lines[3].startswith("transformer_blocks  5 layers") and " -  ┊  1      skipped" in lines
    result = surgery_command("check", spec, "--svg", tmp_path / "skip.svg")
    assert result.exit_code == 0
    assert (tmp_path / "skip.svg").read_text().startswith("<svg ")
    (tmp_path / "mine.svg").write_text("mine")
    mine = surgery_command("check", spec, "--svg", tmp_path / "mine.svg")
    assert mine.exit_code == 1 and "mine.svg is there already; give another file, or --force" in mine.stderr
    assert (tmp_path / "mine.svg").read_text() == "mine"
    several = surgery_command("check", spec, write_spec("two.yaml", SKIP), "--svg", tmp_path / "two.svg")
    assert (several.exit_code, several.stderr) == (1, "--svg draws one spec; give a single spec\n")


def test_the_anatomy_can_be_shown(pipeline, write_spec, surgery_command):
    result = surgery_command("check", write_spec("skip.yaml", SKIP), "--show", "anatomy")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith(f"{pipeline}: PixArtTransformer2DModel, ")
    assert "transformer_blocks[0:5]" in result.stdout


def test_the_rewritten_code_can_be_shown(write_spec, surgery_command):
    spec = write_spec("skip.yaml", SKIP)
    result = surgery_command("check", spec, "--show", "code")
    assert result.exit_code == 0
    assert result.stdout.startswith("def forward(self, ")
    assert 'self.transformer_blocks, "0"' in result.stdout
    assert 'self.transformer_blocks, "1"' not in result.stdout
    compile(result.stdout, "graph", "exec")
    document = json.loads(surgery_command("check", spec, "--show", "code", "--json").stdout)
    assert document["code"].strip() == result.stdout.strip()


def test_the_model_option_overrides_the_spec(pipeline, write_spec, surgery_command):
    spec = write_spec("elsewhere.yaml", SKIP, model="/nowhere/at/all")
    assert surgery_command("check", spec).exit_code == 1
    assert surgery_command("check", spec, "--model", pipeline).exit_code == 0
    assert surgery_command("check", spec, "--model", pipeline / "transformer").exit_code == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "names no model; write model: in the spec, or give --model"),
        ("/nowhere/at/all", "there is no folder /nowhere/at/all"),
    ],
)
def test_a_missing_model_is_told(write_spec, surgery_command, model, message):
    result = surgery_command("check", write_spec("spec.yaml", SKIP, model=model))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_a_missing_spec_and_a_missing_profile_are_told(tmp_path, write_spec, surgery_command):
    absent = surgery_command("check", tmp_path / "absent.yaml")
    profile = surgery_command("check", write_spec("skip.yaml", SKIP), "--profile", tmp_path / "absent.safetensors")
    assert (absent.exit_code, profile.exit_code) == (1, 1)
    assert "absent.yaml" in absent.stderr
    assert "absent.safetensors can't be read" in profile.stderr


@pytest.mark.parametrize("arguments", [[], ["spec.yaml", "--show", "everything"], ["spec.yaml", "--nonsense"]])
def test_wrong_usage_exits_with_two(surgery_command, arguments):
    assert surgery_command("check", *arguments).exit_code == 2


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text('surgery: v1\nmodel: demo\nvary: {s: [3, 4]}\noperations: [{skip: "transformer_blocks[{s}]"}]\n')
    return path


def test_a_sweep_is_checked_in_all_its_variants(sweep, surgery_command):
    result = surgery_command("check", sweep)
    head, price = result.stdout.splitlines()
    assert (result.exit_code, head) == (0, f"{sweep}: valid, a sweep of 2 variants")
    assert price == (
        "  one forward of each: 2 forwards, 22 runs of blocks; the denoising errors of all in one walk: 19 (86%), "
        "772 M of 893 M FLOPs (86%)"
    )
    document = json.loads(surgery_command("check", sweep, "--json").stdout)
    assert document["walk"]["forwards"] == 2
    assert document["walk"]["block_runs"] == {"alone": 22, "in_one_walk": 19}
    assert [variant["name"] for variant in document["variants"]] == ["sweep s=3", "sweep s=4"]
    sweep.write_text(sweep.read_text().replace("[3, 4]", "[3, 14]"))
    result = surgery_command("check", sweep)
    assert result.exit_code == 1 and f"{sweep}:4:" in result.stderr and "there is no layer 14" in result.stderr


def test_a_sweep_with_windows_has_no_price_of_one_forward(sweep, surgery_command):
    """What a forward runs hangs on where it stands."""
    sweep.write_text(sweep.read_text().replace('[{s}]"}', '[{s}]", when: {timesteps: [0.5, 1.0]}}'))
    result = surgery_command("check", sweep)
    assert (result.exit_code, result.stdout) == (0, f"{sweep}: valid, a sweep of 2 variants\n"), result.stderr
    assert "walk" not in json.loads(surgery_command("check", sweep, "--json").stdout)


@pytest.mark.parametrize("option", [("--svg", "sweep.svg"), ("--show", "graph"), ("--show", "code")])
def test_what_is_drawn_of_one_spec_is_not_drawn_of_a_sweep(sweep, surgery_command, option):
    result = surgery_command("check", sweep, *option)
    assert result.exit_code == 1 and f"is of one spec; {sweep} is a sweep of 2 variants" in result.stderr
