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
    for out in (tmp_path / "folder", tmp_path / "gone" / "schema.json"):
        result = CliRunner().invoke(app, ["schema", "--out", str(out)])
        assert result.exit_code == 1
        assert result.output.startswith(f"{out} can't be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
