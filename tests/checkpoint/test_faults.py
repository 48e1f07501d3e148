"""What can go wrong with disks, folders and other processes: one clear message, and nothing is left behind."""

import contextlib
import errno
import os
import re
import resource
import shutil
import subprocess
import sys

import pytest
from diffusers import FluxTransformer2DModel
from typer.testing import CliRunner

from surgery.commands.main import app
from surgery.errors import InputError
from surgery.plan.planned import plan_spec_file
from surgery.publish.pruned_model import CompileOptions, compile_planned

SPEC = 'surgery: v1\noperations:\n  - skip: "single_transformer_blocks[1]"\n'
OPTIONS = CompileOptions(verify="structure", max_shard_size="60KB")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def source(saved, tmp_path):
    """A folder of a tiny Flux in several shards, which may be spoilt."""
    return shutil.copytree(saved("flux").many, tmp_path / "source")


@pytest.fixture
def spec(tmp_path):
    """A spec that skips a layer."""
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path / "spec.yaml"


@pytest.fixture
def planned(spec, source):
    """That spec, planned for that folder."""
    return plan_spec_file(spec, model=str(source))


@pytest.fixture
def pipeline(saved, tmp_path):
    """A folder of a pipeline: the transformer, and a component with a large file (which is linked) and a small one."""
    folder = tmp_path / "pipeline"
    shutil.copytree(saved("flux").many, folder / "transformer")
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text("{}")
    (folder / "vae" / WEIGHTS).write_bytes(safetensors(2**21))
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (folder / "model_index.json").write_text(str({**index, "vae": ["diffusers", "AutoencoderKL"]}).replace("'", '"'))
    return folder


def safetensors(size):
    """A file of one tensor."""
    header = b'{"x":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (size, size)
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of some bytes, in memory."""
    mounted = []

    def mount(size, *options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(folder)]
        done = subprocess.run(command, check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("disks in memory are mounted on Linux")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def compile_spec(*arguments):
    """`surgery compile SPEC --to checkpoint ...` in this process: its exit status and standard error."""
    words = ["compile", *map(str, arguments), "--to", "checkpoint", "--verify", "structure"]
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stderr


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def while_writing(mischief, *, after=1):
    """A progress that does mischief once, when a number of pieces has been written."""
    told = []

    def start(total):
        if after == 0:
            mischief()

        def advance(size):
            told.append(size)
            if len(told) == after:
                mischief()

        return advance

    return start


def refused(planned, out, message, *, progress, options=OPTIONS):
    """Compile, expect an error with this whole message, and nothing left."""
    before = names(out.parent)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        compile_planned(planned, out, options, progress=progress)
    assert names(out.parent) == before


# Disks


def test_too_little_room_is_said_before_anything_is_written(spec, source, small_disk):
    disk = small_disk("1M")
    status, said = compile_spec(spec, "--model", source, "--out", disk / "out")
    assert re.fullmatch(
        rf"the disk of {disk} has 1\.0 MB left, and 1\.\d MB are needed; make room, or write to another disk\n", said
    )
    assert (status, names(disk)) == (1, [])


@pytest.mark.parametrize("after", [1, 3])
def test_a_disk_that_fills_up_meanwhile(planned, small_disk, after):
    disk = small_disk("4M")

    def fill():
        with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))

    message = f"the disk of {disk / 'out'} is full; nothing was left there: make room, or write to another disk"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        compile_planned(planned, disk / "out", OPTIONS, progress=while_writing(fill, after=after))
    assert names(disk) == ["other"]
    (disk / "other").unlink()
    compile_planned(planned, disk / "out", OPTIONS)
    assert names(disk) == ["out"]


def test_the_rest_of_a_pipeline_is_counted_where_it_can_not_be_linked(spec, pipeline, small_disk):
    disk = small_disk("3M")
    status, said = compile_spec(spec, "--model", pipeline, "--out", disk / "out")
    assert status == 1 and said.startswith(f"the disk of {disk} has 3.1 MB left, and 3.") and names(disk) == []
    assert compile_spec(spec, "--model", pipeline, "--out", disk / "out", "--transformer-only")[0] == 0


def test_a_disk_that_fills_up_with_the_last_texts(planned, small_disk, monkeypatch):
    disk = small_disk("4M")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("surgery.publish.pruned_model.write_card", lambda facts: (_ for _ in ()).throw(full))
    message = f"the disk of {disk / 'out'} is full; nothing was left there: make room, or write to another disk"
    refused(planned, disk / "out", message, progress=while_writing(lambda: None))


def test_a_disk_that_takes_no_large_files(planned, tmp_path):
    message = (
        f"the disk of {tmp_path / 'out'} takes no files of this size, and nothing was left there; write smaller ones "
        "(--max-shard-size), or to another disk"
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        refused(planned, tmp_path / "out", message, progress=while_writing(lambda: None))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_is_read_only(spec, source, small_disk):
    disk = small_disk("4M", "ro")
    said = f"the folder {disk / 'out'} can't be made: {disk} is no folder that can be written to\n"
    assert compile_spec(spec, "--model", source, "--out", disk / "out") == (1, said)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE], ids=errno.errorcode.get)
def test_a_disk_that_fails_meanwhile(planned, tmp_path, number):
    def fail():
        raise OSError(number, os.strerror(number))

    message = f"{tmp_path / 'out'} was not written: {os.strerror(number)}"
    refused(planned, tmp_path / "out", message, progress=while_writing(fail))


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_may_not_be_written_to(spec, source, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    said = f"the folder {tmp_path / 'locked' / 'out'} can't be made: {tmp_path / 'locked'} is no folder that can be "
    assert compile_spec(spec, "--model", source, "--out", tmp_path / "locked" / "out") == (1, f"{said}written to\n")


def test_where_a_disk_is_mounted_no_folder_can_be_put(spec, source, small_disk):
    disk = small_disk("4M")
    said = f"{disk} is where a disk is mounted, which can't be replaced; give a folder in it\n"
    assert compile_spec(spec, "--model", source, "--out", disk) == (1, said)
    assert names(disk) == []


# The original changes


def rewrite(path):
    path.write_bytes(path.read_bytes())


def touch_later(path):
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def cut_off(path):
    os.truncate(path, path.stat().st_size - 3)


def empty(path):
    os.truncate(path, 0)


def replace_by_another(path):
    other = path.with_suffix(".new")
    shutil.copyfile(path, other)
    other.replace(path)


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("change", "after"),
    [
        *((change, 0) for change in (rewrite, touch_later, cut_off, empty, replace_by_another, remove)),
        *((change, 3) for change in (cut_off, remove)),  # the file is open by then
    ],
)
def test_an_original_that_changes_meanwhile(planned, source, tmp_path, change, after):
    path = sorted(source.glob("*.safetensors"))[-1]
    reason = "is gone since its header was read; run it again"
    if change is not remove:
        reason = "was changed since its header was read; run it again when it stays as it is"
    elif after == 0:
        reason = None
    message = f"{path} {reason}" if reason else f"{tmp_path / 'out'} was not written: No such file or directory: {path}"
    refused(planned, tmp_path / "out", message, progress=while_writing(lambda: change(path), after=after))


@pytest.mark.parametrize("change", [cut_off, empty])
def test_an_original_that_changes_while_it_is_scaled(spec, source, tmp_path, change):
    """Its values pass through this process then."""
    spec.write_text("surgery: v1\noperations:\n  - scale: {layers: 'single_transformer_blocks[:]', by: 0.5}\n")
    planned = plan_spec_file(spec, model=str(source))
    path = sorted(source.glob("*.safetensors"))[-1]
    message = f"{path} was changed since its header was read; run it again when it stays as it is"
    refused(planned, tmp_path / "out", message, progress=while_writing(lambda: change(path), after=0))


def test_a_component_that_becomes_shorter_meanwhile(spec, pipeline, tmp_path):
    planned = plan_spec_file(spec, model=str(pipeline))
    path = pipeline / "vae" / WEIGHTS
    message = f"{path} was changed meanwhile; run it again when it stays as it is"
    options = CompileOptions(verify="structure", copies=True)
    progress = while_writing(lambda: os.truncate(path, 5))
    refused(planned, tmp_path / "out", message, progress=progress, options=options)


# Symlinks, and folders within each other


def test_a_target_that_is_a_loop_of_symlinks(spec, source, tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "out")
    said = f"{tmp_path / 'out'} is a loop of symlinks; give another folder\n"
    for options in ([], ["--force"]):
        assert compile_spec(spec, "--model", source, "--out", tmp_path / "out", *options) == (1, said)
    assert (tmp_path / "out").is_symlink()
    assert compile_spec(spec, "--model", source, "--out", tmp_path / "out", "--dry-run")[0] == 0


def test_a_target_below_a_loop_of_symlinks(spec, source, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    said = f"{tmp_path / 'loop' / 'out'} is a loop of symlinks; give another folder\n"
    assert compile_spec(spec, "--model", source, "--out", tmp_path / "loop" / "out") == (1, said)


def test_a_target_that_is_a_symlink_to_nothing(spec, source, tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    said = f"{tmp_path / 'out'} is a symlink to nothing; give another folder\n"
    assert compile_spec(spec, "--model", source, "--out", tmp_path / "out") == (1, said)
    assert not (tmp_path / "nowhere").exists()


def test_a_target_that_is_a_symlink_to_a_folder_stays_one(spec, source, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    assert compile_spec(spec, "--model", source, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").is_symlink() and (tmp_path / "real" / "config.json").exists()
    assert names(tmp_path) == ["out", "real", "source", "spec.yaml"]


def test_a_model_that_is_a_loop_of_symlinks(spec, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    status, said = compile_spec(spec, "--model", tmp_path / "loop", "--out", tmp_path / "out")
    assert status == 1 and said.startswith(f"there is no folder {tmp_path / 'loop'}; write a folder")


def test_a_shard_that_is_a_loop_of_symlinks(spec, source, tmp_path):
    path = sorted(source.glob("*.safetensors"))[0]
    path.unlink()
    path.symlink_to(path)
    status, said = compile_spec(spec, "--model", source, "--out", tmp_path / "out")
    assert status == 1 and path.name in said and not (tmp_path / "out").exists()


def test_a_component_that_holds_itself(spec, pipeline, tmp_path):
    (pipeline / "vae" / "again").symlink_to(pipeline / "vae")
    folder = pipeline / "vae" / "again"
    said = f"{folder} is a loop of symlinks; leave it out, or give --transformer-only\n"
    assert compile_spec(spec, "--model", pipeline, "--out", tmp_path / "out") == (1, said)
    options = ["--out", tmp_path / "out", "--transformer-only"]
    assert compile_spec(spec, "--model", pipeline, *options)[0] == 0


def test_a_component_with_a_file_that_is_a_loop_of_symlinks(spec, pipeline, tmp_path):
    path = pipeline / "vae" / "more.json"
    path.symlink_to(path)
    said = f"{path} can't be read: Too many levels of symbolic links\n"
    assert compile_spec(spec, "--model", pipeline, "--out", tmp_path / "out") == (1, said)


def test_original_and_target_do_not_lie_within_each_other(spec, source, tmp_path):
    (tmp_path / "alias").symlink_to(source)
    before = names(source)
    for out in (source / "out", source, tmp_path, tmp_path / "alias", tmp_path / "alias" / "a" / "b"):
        said = f"{out} and the model {source} lie within each other; give a folder elsewhere\n"
        assert compile_spec(spec, "--model", source, "--out", out, "--force") == (1, said)
    assert names(source) == before


# Another run


def test_two_runs_to_one_target(planned, spec, source, tmp_path):
    """The second one says so, whatever it may replace; the first one ends well."""
    out, said = tmp_path / "out", []

    def run_second():
        said.append(compile_spec(spec, "--model", source, "--out", out))
        said.append(compile_spec(spec, "--model", source, "--out", out, "--force"))

    compile_planned(planned, out, OPTIONS, progress=while_writing(run_second))
    assert said == [(1, f"another run is writing {out}; wait for it, or give another folder\n")] * 2
    assert names(tmp_path) == ["out", "source", "spec.yaml"]
    FluxTransformer2DModel.from_pretrained(out)
