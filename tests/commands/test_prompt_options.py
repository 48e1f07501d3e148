"""Prompts of a call and of files, as every command reads them that runs a pipeline."""

import json

import pytest

from surgery.commands.drawing_options import read_prompts
from surgery.errors import InputError

CAPTIONS = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "caption": "red apple"}, {"image_id": 2, "caption": "green, ripe pear"}],
}
FILES = {
    "prompts.txt": "red apple\n\ngreen, ripe pear\n",
    "prompts.csv": 'number,prompt\n1,red apple\n2,"green, ripe pear"\n',
    "captions.json": json.dumps(CAPTIONS),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_its_prompts_behind_those_of_the_call(name, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    assert read_prompts(["plum"], tmp_path / name) == ("plum", "red apple", "green, ripe pear")


def test_a_sample_is_drawn_of_the_file_by_its_seed(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(f"prompt {number}" for number in range(20)))
    sample = read_prompts(["plum"], file, 5, 3)
    assert sample[0] == "plum"
    assert len(set(sample)) == 6
    assert sample == read_prompts(["plum"], file, 5, 3) != read_prompts(["plum"], file, 5, 4)


@pytest.mark.parametrize(
    ("text", "sample", "says"),
    [
        (None, 2, "--sample draws from the prompts of a file; give --prompts FILE"),
        (None, None, 'there is no prompt; give --prompt "red apple", or --prompts FILE'),
        ("a\nb\n", 3, "holds 2 prompts, and 3 are to be drawn"),
        ("\n", None, "holds no prompt; write one a line"),
    ],
)
def test_what_can_not_be_read_is_told(text, sample, says, tmp_path):
    file = None
    if text is not None:
        file = tmp_path / "prompts.txt"
        file.write_text(text)
    with pytest.raises(InputError, match=says):
        read_prompts([], file, sample)
