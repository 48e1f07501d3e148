"""`surgery learn`: what a pipeline gives its transformer is kept, and said."""

import json


def test_the_call_of_a_pipeline_is_kept_and_said(surgery_command, tmp_path, monkeypatch):
    monkeypatch.setenv("SURGERY_CACHE", str(tmp_path))
    result = surgery_command("learn", "demo", "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["call"]["hidden_states"] == "batch in_channels height width"
    assert said["known_from"] == "row"  # one that a person wrote goes before
    (file,) = (tmp_path / "calls").iterdir()
    assert json.loads(file.read_text())["row"] == said["call"]


def test_a_bare_transformer_has_no_call(surgery_command, tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    result = surgery_command("learn", str(tmp_path))
    assert result.exit_code == 1 and "is a bare transformer; to record its call, give" in result.stderr
