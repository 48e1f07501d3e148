"""`surgery check`: valid specs are shown, all faults of all specs are told, each with its place."""

import json

import pytest

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


def test_json_of_a_faulty_spec_holds_its_faults(faulty, surgery_command):
    result = surgery_command("check", faulty, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"spec": str(faulty), "faults": result.stderr.splitlines()}


def test_one_bad_spec_among_several_spoils_the_status_only(faulty, write_spec, surgery_command):
    specs = [write_spec("one.yaml", SKIP), faulty, write_spec("two.yaml")]
    result = surgery_command("check", *specs)
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line.endswith(": valid")] == [
        f"{specs[0]}: valid",
        f"{specs[2]}: valid",
    ]
    assert len(result.stderr.splitlines()) == 3
    documents = json.loads(surgery_command("check", *specs, "--json").stdout)
    assert [document["spec"] for document in documents] == [str(spec) for spec in specs]
    assert ["faults" in document for document in documents] == [False, True, False]


def test_the_anatomy_can_be_shown(pipeline, write_spec, surgery_command):
    result = surgery_command("check", write_spec("skip.yaml", SKIP), "--show", "anatomy")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith(f"{pipeline}: PixArtTransformer2DModel, ")
    assert "transformer_blocks[0:5]" in result.stdout


def test_the_rewritten_graph_can_be_shown(write_spec, surgery_command):
    spec = write_spec("skip.yaml", SKIP)
    result = surgery_command("check", spec, "--show", "graph")
    assert result.exit_code == 0
    assert result.stdout.startswith("def forward(self, ")
    assert 'self.transformer_blocks, "0"' in result.stdout
    assert 'self.transformer_blocks, "1"' not in result.stdout
    compile(result.stdout, "graph", "exec")
    document = json.loads(surgery_command("check", spec, "--show", "graph", "--json").stdout)
    assert document["graph"].strip() == result.stdout.strip()


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
