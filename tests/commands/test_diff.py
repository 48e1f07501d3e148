"""`surgery diff`: two specs side by side, what differs marked."""

import json

import pytest

from surgery import text_table

SKIP = 'skip: "transformer_blocks[1:3]"'
ZERO = 'replace: {component: "transformer_blocks[0].ff", with: zero}'


def rows_of(result):
    """Fact -> (mark, A, B), of rows that are not wrapped."""
    rows = [line.split("  ") for line in result.stdout.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    marked = [(row[0], row[1:]) if row and row[0] == "≠" else ("", row) for row in cells]
    return {row[0]: (mark, *row[1:]) for mark, row in marked if row}


def test_both_sides_stand_beside_each_other(write_spec, surgery_command, pipeline):
    first, second = write_spec("a.yaml", SKIP), write_spec("b.yaml", ZERO)
    result = surgery_command("diff", first, second)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = rows_of(result)
    assert rows["transformer_blocks"] == ("≠", "0 3:5", "0:5")
    assert rows["without"] == ("≠", "1:3")
    assert rows["executions"] == ("≠", "3", "5")
    assert rows["transformer_blocks.0.ff"] == ("≠", "zero")
    assert rows["FLOPs of the blocks"][:2] == ("≠", "60.0%")
    assert rows["graph"] == ("", "yes", "yes") and rows["checkpoint"] == ("≠", "yes", "perhaps")
    assert "the same plan" not in result.stdout


def test_json_holds_every_fact(write_spec, surgery_command):
    result = surgery_command("diff", write_spec("a.yaml", SKIP), write_spec("b.yaml", ZERO), "--json")
    document = json.loads(result.stdout)
    assert document["same_plan"] is False
    assert document["facts"]["transformer_blocks"] == {"a": "0 3:5", "b": "0:5", "differs": True}


def test_specs_that_say_the_same_in_other_words_are_the_same_plan(write_spec, surgery_command):
    first = write_spec("a.yaml", SKIP)
    second = write_spec("b.yaml", 'order: {stack: transformer_blocks, as: [0, "3:5"]}')
    result = surgery_command("diff", first, second)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("the same plan, ")
    assert "≠" not in result.stdout


def test_long_schedules_go_on_below_where_there_is_a_terminal(write_spec, surgery_command, monkeypatch):
    order = [4, 2, 0, 3, 1] * 8
    second = write_spec("b.yaml", f"order: {{stack: transformer_blocks, as: {order}}}")
    specs = write_spec("a.yaml", SKIP), second
    schedule = " ".join(map(str, order))
    assert schedule in surgery_command("diff", *specs).stdout
    monkeypatch.setattr(text_table, "terminal_width", lambda: 140)
    printed = surgery_command("diff", *specs).stdout
    assert schedule not in printed and max(map(len, printed.splitlines())) <= 140
    start, end = printed.index("transformer_blocks  "), printed.index("executions")
    assert schedule in " ".join(printed[start:end].split())


def test_models_with_other_stacks_are_refused(write_spec, surgery_command):
    first, second = write_spec("a.yaml", SKIP), write_spec("b.yaml", SKIP, model="demo")
    result = surgery_command("diff", first, second)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "which have other stacks; to plan both for one model, give --model" in result.stderr
    assert surgery_command("diff", first, second, "--model", "demo").exit_code == 0


@pytest.mark.parametrize("side", [0, 1])
def test_faults_are_told(write_spec, surgery_command, side):
    specs = [write_spec("a.yaml", SKIP), write_spec("b.yaml", SKIP)]
    specs[side] = write_spec("bad.yaml", 'skip: "transformer_blocks[9]"')
    result = surgery_command("diff", *specs)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "bad.yaml:4:31: there is no layer 9" in result.stderr
