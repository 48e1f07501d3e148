"""The rest of a pipeline comes along as files of its own: no change goes back to the original, no link leads there."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from surgery.anatomy.sources import ModelSource
from surgery.errors import InputError
from surgery.publish import pipeline_files as components
from surgery.publish.pipeline_files import LINKED_BYTES, count_values, list_pipeline_files, take_along

INDEX = {
    "_class_name": "PixArtAlphaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "PixArtTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "requires_aesthetics_score": False,
    "image_encoder": [None, None],
}
LARGE = b"\0" * LINKED_BYTES
NEEDED = {
    "model_index.json": json.dumps(INDEX).encode(),
    "LICENSE.md": b"Be kind.",
    "Notice.txt": b"By somebody.",
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": LARGE,
    "tokenizer/spiece.model": b"words",
    "tokenizer/more/words.txt": b"more words",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"few",
}
UNNEEDED = {
    "README.md": b"# The original",
    "anatomy.json": b"{}",
    "teaser.png": b"",
    "tiny.safetensors": b"",
    ".gitattributes": b"",
    "samples/a.png": b"",
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors": b"",
    "unknown/config.json": b"{}",
    "tokenizer/.DS_Store": b"",
    "vae/diffusion_pytorch_model.bin": b"",
    "vae/diffusion_pytorch_model.fp16.safetensors": b"",
    "text_encoder/model.onnx": b"",
}


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def source_of(root, *, transformer_only=False):
    return ModelSource("tiny", {}, root / "transformer", None if transformer_only else str(root), None)


@pytest.fixture
def pipeline(tmp_path):
    return write_files(tmp_path / "pipeline", {**NEEDED, **UNNEEDED})


@pytest.fixture
def take_all(tmp_path):
    """Takes all files of a pipeline along; returns the new folder and the names of those that were linked."""

    def take(root, **options):
        target = tmp_path / "pruned"
        return target, {it.name for it in list_pipeline_files(source_of(root)) if take_along(it, target, **options)}

    return take


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_the_rest_of_a_pipeline_and_its_licence_come_along_and_nothing_else(pipeline, take_all):
    target, _ = take_all(pipeline)
    assert {name: (target / name).read_bytes() for name in files_below(target)} == NEEDED


def test_large_files_are_links_and_small_ones_copies_that_may_be_edited(pipeline, take_all):
    target, linked = take_all(pipeline)
    assert linked == {"text_encoder/model.safetensors"}
    for name in NEEDED:
        assert (target / name).samefile(pipeline / name) == (name in linked)
    (target / "scheduler/scheduler_config.json").write_text('{"shift": 3}')
    assert (pipeline / "scheduler/scheduler_config.json").read_bytes() == b"{}"


def test_copies_are_copies_of_all(pipeline, take_all):
    target, linked = take_all(pipeline, copies=True)
    assert linked == set()
    assert not any((target / name).samefile(pipeline / name) for name in NEEDED)
    assert (target / "text_encoder/model.safetensors").read_bytes() == LARGE


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES])
def test_where_there_are_no_links_the_file_is_copied(pipeline, take_all, monkeypatch, code):
    def refuse(*paths, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    target, linked = take_all(pipeline)
    assert linked == set()
    assert (target / "text_encoder/model.safetensors").read_bytes() == LARGE


def test_each_byte_is_told_once(pipeline, tmp_path):
    for copies in (False, True):
        told = []
        for file in list_pipeline_files(source_of(pipeline)):
            take_along(file, tmp_path / f"pruned-{copies}", copies=copies, advance=told.append)
        assert sum(told) == sum(map(len, NEEDED.values()))


def test_nothing_is_written_through_a_file_that_is_there(pipeline, tmp_path):
    """A copy that was opened for writing over a link would empty the original."""
    target = tmp_path / "pruned"
    for file in list_pipeline_files(source_of(pipeline)):
        take_along(file, target)
        with pytest.raises(FileExistsError):
            take_along(file, target)
    assert (pipeline / "text_encoder/model.safetensors").read_bytes() == LARGE


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o444])
def test_files_keep_their_modes(pipeline, take_all, mode):
    for name in NEEDED:
        (pipeline / name).chmod(mode)
    target, _ = take_all(pipeline)
    assert {stat.S_IMODE((target / name).stat().st_mode) for name in NEEDED} == {mode}


@pytest.fixture
def snapshot(tmp_path):
    """The pipeline as the hub's cache holds it: each file a relative symlink to a blob."""
    root, blobs = tmp_path / "hub" / "snapshots" / "0123", tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    for number, (name, content) in enumerate({**NEEDED, **UNNEEDED}.items()):
        (blobs / str(number)).write_bytes(content)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    return root


def test_of_the_hubs_cache_the_files_come_along_not_its_symlinks(snapshot, take_all):
    target, linked = take_all(snapshot)
    assert linked == {"text_encoder/model.safetensors"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    for path in sorted((snapshot.parents[1]).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert {name: (target / name).read_bytes() for name in files_below(target)} == NEEDED


def test_a_component_that_is_a_symlink_to_a_folder_comes_along(pipeline, tmp_path, take_all):
    (pipeline / "vae").rename(tmp_path / "vae")
    (pipeline / "vae").symlink_to(tmp_path / "vae")
    target, _ = take_all(pipeline)
    assert files_below(target) == set(NEEDED)
    assert not (target / "vae").is_symlink()


def loop(root):
    (root / "tokenizer" / "again").symlink_to(root / "tokenizer")


def loop_of_two(root):
    (root / "tokenizer" / "vae").symlink_to(root / "vae")
    (root / "vae" / "tokenizer").symlink_to(root / "tokenizer")


def link_to_itself(root):
    (root / "tokenizer" / "words.txt").symlink_to(root / "tokenizer" / "words.txt")


def link_to_nothing(root):
    (root / "tokenizer" / "words.txt").symlink_to(root / "nothing")


def pipe(root):
    os.mkfifo(root / "tokenizer" / "words.txt")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (loop, "again is a loop of symlinks; leave it out, or give --transformer-only"),
        (loop_of_two, "is a loop of symlinks; leave it out, or give --transformer-only"),
        (link_to_itself, r"words\.txt can't be read: Too many levels of symbolic links"),
        (link_to_nothing, r"words\.txt can't be read: No such file or directory"),
        (pipe, r"words\.txt is no regular file; leave it out, or give --transformer-only"),
    ],
)
def test_what_is_no_tree_of_files_is_refused(pipeline, spoil, message):
    spoil(pipeline)
    with pytest.raises(InputError, match=message):
        list_pipeline_files(source_of(pipeline))
    assert {file.name for file in list_pipeline_files(source_of(pipeline, transformer_only=True))} == {
        "LICENSE.md",
        "Notice.txt",
    }


@pytest.mark.parametrize("name", ["..", ".", "", "../secret", "vae/../../secret", "/etc", "vae/inner"])
def test_an_index_that_leads_out_of_its_folder_is_refused(pipeline, name):
    (pipeline.parent / "secret").mkdir()
    (pipeline / "model_index.json").write_text(json.dumps({**INDEX, name: ["diffusers", "AutoencoderKL"]}))
    with pytest.raises(InputError, match=r"model_index\.json names the component .*, which is no folder beside it"):
        list_pipeline_files(source_of(pipeline))


def test_a_file_that_becomes_shorter_is_refused(pipeline, tmp_path):
    (file,) = [it for it in list_pipeline_files(source_of(pipeline)) if it.name == "LICENSE.md"]
    (pipeline / "LICENSE.md").write_bytes(b"Be")
    with pytest.raises(InputError, match=r"LICENSE\.md was changed meanwhile; run it again"):
        take_along(file, tmp_path / "pruned")


def test_a_variant_comes_along_where_a_component_has_it(pipeline):
    names = {file.name for file in list_pipeline_files(source_of(pipeline), variant="fp16")}
    plain, variant = "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"
    assert names == {*NEEDED, variant} - {plain}


def test_a_component_with_pickles_alone_keeps_them(pipeline):
    for path in (pipeline / "vae").glob("*.safetensors"):
        path.unlink()
    files = list_pipeline_files(source_of(pipeline))
    assert "vae/diffusion_pytorch_model.bin" in {file.name for file in files}
    assert count_values([file for file in files if not file.name.startswith("text_encoder")]) is None


def test_parameters_are_counted_from_headers(tmp_path):
    header = b'{"w":{"dtype":"F16","shape":[3,4],"data_offsets":[0,24]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 24)
    files = [components.PipelineFile(path, "vae/model.safetensors", path.stat().st_size)] * 2
    assert count_values([*files, components.PipelineFile(Path("x"), "tokenizer/vocab.json", 3)]) == 24
