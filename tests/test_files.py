"""A file is there whole or not at all."""

from surgery.files import write_whole


def test_a_file_is_replaced_at_once(tmp_path):
    write_whole(tmp_path / "file", "one")
    write_whole(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_text() == "two" and [path.name for path in tmp_path.iterdir()] == ["file"]
