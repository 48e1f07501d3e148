"""`surgery schema` prints or writes the JSON Schema, or says why it can't."""

import json

from typer.testing import CliRunner

from surgery.commands.main import app
from surgery.spec.schema import json_schema


def test_it_prints_the_schema_and_writes_the_same(tmp_path):
    printed = CliRunner().invoke(app, ["schema"])
    written = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "schema.json")])
    assert (printed.exit_code, written.exit_code, written.output) == (0, 0, "")
    assert json.loads(printed.output) == json_schema()
    assert (tmp_path / "schema.json").read_text() == printed.output


def test_what_can_not_be_written_is_said_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.json").write_text("mine")
    messages = {"folder": "is a folder; give a file", "mine.json": "is there already; give another file, or --force"}
    for name, message in messages.items():
        result = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / name)])
        assert (result.exit_code, f"{tmp_path / name} {message}" in result.output) == (1, True), result.output
    assert (tmp_path / "mine.json").read_text() == "mine" and not list((tmp_path / "folder").iterdir())
    assert CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "mine.json"), "--force"]).exit_code == 0
