"""The rule of `--out`: whole or not at all, one run at a time, and nothing is hurt that a command did not write."""

import errno
import json

import pytest
from safetensors import SafetensorError

from surgery import files
from surgery.errors import InputError
from surgery.files import hash_file
from surgery.outputs import added_files, own_folder, refuse_file, whole_folder, write_file
from surgery.written import MANIFEST, MARKER, read_written


def contents(folder):
    """Every file below a folder, but for markers, with what is in it; links to folders as what they name."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else str(path.readlink())
        for path in sorted(folder.rglob("*"))
        if path.name not in (MARKER, MANIFEST) and (path.is_file() or path.is_symlink())
    }


def compile_into(out, *, force=False, **texts):
    """A folder as `surgery compile` makes them."""
    with whole_folder(out, force=force) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text)
        sizes = {name: hash_file(folder / name) for name in texts}
        (folder / MANIFEST).write_text(json.dumps({"plan": "", "files": sizes}))


def draw_into(out, *, force=False, beside_others=False, **texts):
    """A folder as `surgery generate` makes them; two underscores stand for a slash."""
    with added_files(out, "draw", force=force, beside_others=beside_others) as folder:
        for name, text in texts.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


@pytest.fixture(params=[compile_into, draw_into])
def write_into(request):
    return request.param


# Of every folder


def test_a_folder_appears_when_it_is_complete(tmp_path, write_into):
    write_into(tmp_path / "a" / "out", file="x")
    assert contents(tmp_path) == {"a/out/file": "x"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_an_empty_folder_is_as_good_as_none_and_a_full_one_takes_force(tmp_path, write_into):
    (tmp_path / "out").mkdir()
    write_into(tmp_path / "out", file="x")
    with pytest.raises(InputError, match="out is not empty; give another folder, or --force"):
        write_into(tmp_path / "out", other="y")
    write_into(tmp_path / "out", force=True, other="y")
    assert contents(tmp_path) == {"out/other": "y"}


@pytest.mark.parametrize("there", ["no", "empty", "own"])
@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_after_an_error_nothing_is_left_and_nothing_lost(tmp_path, write_into, there, error):
    out = tmp_path / "a" / "out"
    if there == "empty":
        out.mkdir(parents=True)
    if there == "own":
        write_into(out, old="old")
    before = contents(tmp_path)
    open_folder = {compile_into: whole_folder, draw_into: lambda out, force: added_files(out, "draw", force=force)}
    with (
        pytest.raises((KeyboardInterrupt, InputError), match=r"^$|the disk of .* is full; nothing was left there"),
        open_folder[write_into](out, force=there == "own") as folder,
    ):
        (folder / "file").write_text("x")
        raise error
    assert contents(tmp_path) == before
    assert (tmp_path / "a").exists() == (there != "no") and (there == "no" or len(list(out.iterdir())) in (0, 2))


def test_one_run_at_a_time_writes_to_a_target(tmp_path, write_into):
    open_folder = {compile_into: whole_folder, draw_into: lambda out: added_files(out, "draw", force=False)}
    with open_folder[write_into](tmp_path / "out") as folder:
        (folder / "file").write_text("first")
        with pytest.raises(InputError, match=r"another run is writing .*out; wait for it"):
            write_into(tmp_path / "out", file="second")
    assert contents(tmp_path) == {"out/file": "first"}


def test_a_target_that_can_not_be_a_folder_is_refused(tmp_path, write_into):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is a file; give a folder"):
        write_into(tmp_path / "file")
    with pytest.raises(InputError, match="no folder that can be written to"):
        write_into(tmp_path / "file" / "out")


def test_what_the_user_has_put_there_is_never_replaced(tmp_path, write_into):
    """Not what lay there before, nor a file of ours that was changed since."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    write_into(tmp_path / "changed", file="x")
    (tmp_path / "changed" / "file").write_text("changed")
    for out, text in (("mine", "mine"), ("changed", "changed")):
        with pytest.raises(InputError, match=f"{out}/file is not what `surgery (compile|draw)` wrote there; move it"):
            write_into(tmp_path / out, force=True, file="new")
        assert contents(tmp_path / out) == {"file": text}


def test_what_a_killed_run_has_left_is_written_over(tmp_path, write_into):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("x")
    write_into(tmp_path / "out", file="x")
    assert contents(tmp_path) == {"out/file": "x"}


# Of a folder that is replaced as a whole


def test_a_compiled_folder_is_not_replaced_with_what_the_user_has_put_beside(tmp_path):
    compile_into(tmp_path / "out", file="x")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out/notes\.txt is not what `surgery compile` wrote there"):
        compile_into(tmp_path / "out", force=True, file="y")
    assert contents(tmp_path / "out") == {"file": "x", "notes.txt": "mine"}


# Of a folder that files are added to


def test_force_replaces_what_was_written_and_leaves_the_rest(tmp_path):
    draw_into(tmp_path / "out", row__0="a", row__1="b", sheet="c")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    draw_into(tmp_path / "out", force=True, row__0="d", sheet="c")
    assert contents(tmp_path / "out") == {"row/0": "d", "sheet": "c", "notes.txt": "mine"}


def test_what_is_added_beside_others_replaces_nothing_but_by_force(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    draw_into(tmp_path, beside_others=True, one="1")
    draw_into(tmp_path, beside_others=True, one="1", two="2")
    with pytest.raises(InputError, match="one is there already; give another folder, or --force to replace it"):
        draw_into(tmp_path, beside_others=True, one="other")
    draw_into(tmp_path, beside_others=True, force=True, one="other")
    assert contents(tmp_path) == {"one": "other", "two": "2", "notes.txt": "mine"}


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "row").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="out/row is in the way; move it away, or give another folder"):
        draw_into(tmp_path / "out", force=True, row__0="a")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_that_is_killed_while_files_take_their_places_is_written_over(tmp_path, monkeypatch):
    """Half of them may be there: the next run knows them, without --force."""
    (tmp_path / "out").mkdir()
    placed, replace = [], type(tmp_path).replace

    def stop(path, target):
        if not path.name.endswith(".partial"):
            placed.append(path)
            assert len(placed) < 2, "killed"
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "replace", stop)
        with pytest.raises(AssertionError, match="killed"):
            draw_into(tmp_path / "out", one="1", two="2")
    assert contents(tmp_path / "out") == {"one": "1"}
    draw_into(tmp_path / "out", one="3", two="4")
    assert contents(tmp_path / "out") == {"one": "3", "two": "4"}
    assert read_written(tmp_path / "out", "draw").is_whole


# Of a folder that a command goes on in


def test_a_folder_is_gone_on_in_by_its_own_command_and_for_its_own_request_only(tmp_path):
    out = tmp_path / "out"
    with own_folder(out, "draw", "one", force=False), added_files(out, "draw", force=True, request="one") as folder:
        (folder / "results").write_text("one")
    with own_folder(out, "draw", "one", force=False):
        pass
    with (
        pytest.raises(InputError, match="holds the results of another request; give another folder, or --force to"),
        own_folder(out, "draw", "two", force=False),
    ):
        pass
    with own_folder(out, "draw", "two", force=True):
        pass
    with (
        pytest.raises(InputError, match="out is not empty, and `surgery paint` did not make it; give another"),
        own_folder(out, "paint", "one", force=True),
    ):
        pass
    assert contents(out) == {"results": "one"}


def test_a_folder_in_which_nothing_was_begun_goes_again(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), own_folder(tmp_path / "a" / "out", "draw", "one", force=False):
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


# Of a file


def test_a_file_that_is_there_is_replaced_by_force_only_unless_it_is_the_same(tmp_path):
    write_file(tmp_path / "a" / "file", "one")
    write_file(tmp_path / "a" / "file", "one")
    for refuse in (lambda out: write_file(out, "two"), lambda out: refuse_file(out, force=False)):
        with pytest.raises(InputError, match="file is there already; give another file, or --force to replace it"):
            refuse(tmp_path / "a" / "file")
    write_file(tmp_path / "a" / "file", "two", force=True)
    assert contents(tmp_path) == {"a/file": "two"}


def test_a_file_that_can_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", refuse)
    with pytest.raises(InputError, match=r"the disk of .*file is full; nothing was left there"):
        write_file(tmp_path / "file", "one")
    assert not list(tmp_path.iterdir())
