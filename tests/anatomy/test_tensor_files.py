"""What tests/attacks.py holds is refused in its words; its valid neighbours are read as the official library reads."""

import json
import math
import os
import pickle
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import attacks
import fuzz_tensor_files as fuzz
import pytest
import torch
from safetensors import safe_open

from surgery.anatomy import tensor_files
from surgery.anatomy.tensor_files import StoredTensor, find_weights, read_header
from surgery.errors import InputError

MAX_SECONDS = 2.0


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """An empty transformer folder, deleted afterwards: pytest keeps its own, and some attacks are large."""
    (tmp_path / "transformer").mkdir()
    yield tmp_path / "transformer"
    shutil.rmtree(tmp_path / "transformer")


def write(attack, folder) -> str:
    """Write an attack; the message that it must give."""
    if attack.needs_user and os.geteuid() == 0:
        pytest.skip("root may read everything")
    attack.write(folder)
    return attack.message.replace("{folder}", str(folder))


def message_of(folder) -> str:
    """The whole message with which a folder is refused."""
    with pytest.raises(InputError, match=f"^{re.escape(str(folder))}") as caught:
        find_weights(folder)
    return str(caught.value)


def contents(weights):
    """name -> dtype, shape and bytes of all tensors."""
    return {
        name: (tensor.dtype, tensor.shape, file.path.read_bytes()[tensor.start : tensor.stop])
        for name, (file, tensor) in weights.tensors.items()
    }


def faults_of(attack, folder) -> str | None:
    """What is wrong with how an attack is met; None where it is refused in its words. For the saboteurs."""
    attack.write(folder)
    try:
        find_weights(folder)
    except InputError as error:
        return None if str(error) == attack.message.replace("{folder}", str(folder)) else "another message"
    except Exception as error:  # whatever a missing check lets out
        return type(error).__name__
    return "it is read"


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_an_attack_is_refused_in_its_words_at_once_and_leaves_nothing(name, folder):
    message = write(attacks.ATTACKS[name], folder)
    before = sorted(folder.rglob("*"))
    started = time.process_time()
    assert message_of(folder) == message
    assert time.process_time() - started < MAX_SECONDS
    assert sorted(folder.rglob("*")) == before
    assert not (folder / attacks.MARKER).exists()
    assert message.isprintable()


def test_every_kind_of_attack_is_there():
    assert len(attacks.ATTACKS) == len(attacks.FILE_ATTACKS) + len(attacks.FOLDER_ATTACKS) >= 150
    assert len({attack.message for attack in attacks.ATTACKS.values()}) >= 80


@pytest.mark.parametrize("name", [name for name, attack in attacks.FILE_ATTACKS.items() if attack.stricter])
def test_where_the_table_says_that_we_are_stricter_the_official_library_reads_the_file(name, folder):
    write(attacks.FILE_ATTACKS[name], folder)
    with safe_open(folder / attacks.SINGLE, framework="numpy") as file:
        assert set(file.keys()) <= {"a"}


@pytest.mark.parametrize("name", attacks.NEIGHBOURS)
def test_a_valid_neighbour_is_read_to_the_byte(name, folder):
    neighbour = attacks.NEIGHBOURS[name]
    neighbour.write(folder)
    weights = find_weights(folder)
    assert contents(weights) == neighbour.tensors
    assert weights.size_bytes == sum(len(data) for _, _, data in neighbour.tensors.values())
    assert not (folder / attacks.MARKER).exists()


def test_the_official_library_reads_the_neighbour_of_an_unknown_dtype_as_bytes(folder, tmp_path):
    attacks.NEIGHBOURS["dtype_unknown"].write(folder)
    fuzz.check_agreement(find_weights(folder), tmp_path)


@pytest.mark.parametrize("name", ["pickle", "pickle_of_protocol_0"])
def test_a_pickle_of_the_table_does_its_deed_where_it_is_loaded(name, folder):
    attacks.FILE_ATTACKS[name].write(folder)
    pickle.loads((folder / attacks.SINGLE).read_bytes())
    assert (folder / attacks.MARKER).exists()


@pytest.mark.parametrize("name", ["pickle_of_torch", "pickle_of_old_torch"])
def test_a_pickle_of_torch_does_its_deed_where_it_is_loaded(name, folder):
    attacks.FILE_ATTACKS[name].write(folder)
    (folder / attacks.SINGLE).rename(folder / "weights.pt")  # torch, too, goes by the name
    torch.load(folder / "weights.pt", weights_only=False)
    assert (folder / attacks.MARKER).exists()


def test_a_header_as_long_as_the_limit_is_read_and_a_longer_one_refused(folder, monkeypatch):
    attacks.NEIGHBOURS["one_tensor"].write(folder)
    length = (folder / attacks.SINGLE).stat().st_size - 8 - 2
    monkeypatch.setattr(tensor_files, "MAX_HEADER_BYTES", length)
    assert contents(find_weights(folder)) == attacks.A
    monkeypatch.setattr(tensor_files, "MAX_HEADER_BYTES", length - 1)
    assert message_of(folder) == attacks.too_long(length, f"the limit of {length - 1} bytes").replace(
        "{folder}", str(folder)
    )


def test_an_index_as_long_as_the_limit_is_read_and_a_longer_one_refused(folder, monkeypatch):
    attacks.NEIGHBOURS["shards"].write(folder)
    index = folder / attacks.INDEX
    length = index.stat().st_size
    monkeypatch.setattr(tensor_files, "MAX_HEADER_BYTES", length)
    assert contents(find_weights(folder)) == attacks.A | attacks.B
    monkeypatch.setattr(tensor_files, "MAX_HEADER_BYTES", length - 1)
    assert message_of(folder) == f"{index} is longer than the limit of {length - 1} bytes"


def test_the_limits_of_the_table_are_those_of_the_reader():
    assert attacks.LIMIT == tensor_files.MAX_HEADER_BYTES


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"diffusion_pytorch_model.fp16.safetensors": "a"}, {"a"}),
        (
            {
                "diffusion_pytorch_model.safetensors.index.fp16.json": {"weight_map": {"b": "x.fp16.safetensors"}},
                "x.fp16.safetensors": "b",
                "diffusion_pytorch_model.fp16.safetensors": "a",
            },
            {"b"},
        ),
    ],
    ids=["single", "sharded"],
)
def test_a_variant_is_read_by_its_own_names(files, found, folder):
    tensor = ("U8", (2,), b"ab")
    for name, content in files.items():
        text = attacks.sound({content: tensor}) if isinstance(content, str) else json.dumps(content).encode()
        (folder / name).write_bytes(text)
    attacks.NEIGHBOURS["many_tensors"].write(folder)
    assert set(find_weights(folder, variant="fp16").tensors) == found


def test_a_variant_that_is_not_there_is_refused_though_the_plain_one_is(folder):
    attacks.NEIGHBOURS["one_tensor"].write(folder)
    with pytest.raises(InputError, match=r"\.fp16\.") as caught:
        find_weights(folder, variant="fp16")
    assert str(caught.value) == (
        f"{folder} has no diffusion_pytorch_model.fp16.safetensors and no "
        "diffusion_pytorch_model.safetensors.index.fp16.json; there is diffusion_pytorch_model.safetensors; "
        "download the weights, or give the folder that has them"
    )


@pytest.mark.parametrize("is_file", [False, True], ids=["nothing", "file"])
def test_what_is_no_folder_has_no_weights(is_file, tmp_path):
    folder = tmp_path / "gone"
    if is_file:
        folder.write_bytes(attacks.sound(attacks.A))
    message = attacks.FOLDER_ATTACKS["folder_empty"].message
    assert message_of(folder) == message.replace("{folder}", str(folder))


def test_a_stored_tensor_counts_its_bytes_and_values():
    tensor = StoredTensor("a", "F4", (3, 4), 100, 106)
    assert (tensor.size_bytes, tensor.num_values) == (6, 12)
    assert StoredTensor("a", "F32", (), 100, 104).num_values == 1


class TestRefuseChange:
    """A file that is another one than when its header was read is noticed."""

    @pytest.fixture
    def file(self, folder):
        """A file as it was read."""
        attacks.NEIGHBOURS["many_tensors"].write(folder)
        return read_header(folder / attacks.SINGLE)

    def refused(self, file, reason):
        with pytest.raises(InputError, match=f"^{re.escape(str(file.path))}") as caught:
            file.refuse_change()
        assert str(caught.value) == f"{file.path} {reason}"

    def test_none(self, file):
        file.refuse_change()
        assert file.path.read_bytes()
        file.refuse_change()

    def test_of_size(self, file):
        with file.path.open("ab") as stream:
            stream.write(b".")
        os.utime(file.path, ns=(file.mtime_ns, file.mtime_ns))
        self.refused(file, "was changed since its header was read; run it again when it stays as it is")

    @pytest.mark.parametrize("nanoseconds", [-1000, 1000])
    def test_of_time(self, file, nanoseconds):
        os.utime(file.path, ns=(0, file.mtime_ns + nanoseconds))
        self.refused(file, "was changed since its header was read; run it again when it stays as it is")

    def test_to_nothing(self, file):
        file.path.unlink()
        self.refused(file, "is gone since its header was read; run it again")

    def test_to_a_link_to_itself(self, file):
        file.path.unlink()
        file.path.symlink_to(file.path.name)
        self.refused(file, "is gone since its header was read; run it again")


def test_mutated_folders_are_refused_or_read_as_the_official_library_reads_them(tmp_path):
    """A bounded number of what `python tests/fuzz_tensor_files.py` tries; each within its time."""
    sources = fuzz.read_sources()
    outcomes = {
        fuzz.outcome_of(fuzz.mutate(sources, random.Random(f"test/{number}")), tmp_path).kind for number in range(300)
    }
    assert outcomes == {"read", "refused", "stricter"}


def test_the_folders_that_are_mutated_are_read_as_they_are(tmp_path):
    """All valid neighbours; the official library reads the same of them."""
    for content in fuzz.read_sources():
        assert fuzz.outcome_of(content, tmp_path) == fuzz.Outcome("read"), sorted(content)


LIMITS = ("MAX_HEADER_BYTES", "_bounded")  # the checks whose attacks have files of 64 MB


def pass_over(*args):
    """A check that checks nothing."""


SABOTAGE = {  # a check -> what it is replaced by, and attacks that must then be noticed as not met
    "_refuse_gaps": (pass_over, ("gap_between", "offsets_overlap", "file_cut_off_in_its_data")),
    "_unique": (dict, ("name_twice", "key_twice", "header_with_half_a_surrogate_pair", "index_with_a_name_twice")),
    "_is_count": (lambda value: isinstance(value, int), ("shape_true", "offset_true", "shape_negative")),
    "_integer": (int, ("offsets_from_minus_zero", "shape_of_5000_digits")),
    "_refuse_constant": (float, ("shape_nan", "offset_infinity", "index_with_nan")),
    "_count_values": (lambda path, name, shape: math.prod(shape), ("shape_overflows_of_an_unknown_dtype",)),
    "_open": (lambda path: path.open("rb"), ("file_a_folder", "shard_a_folder", "index_a_device")),
    "_exists": (Path.exists, ("index_with_a_name_of_5000_letters_as_shard",)),
    "_bounded": (Path.read_bytes, ("index_over_the_limit",)),
    "PICKLES": ({}, ("pickle", "pickle_of_torch", "gguf", "gzip")),
    "BITS": ({}, ("shape_not_of_the_size", "shape_of_half_a_byte")),
    "ENTRY_KEYS": ({"dtype", "shape"}, ("entry_without_data_offsets",)),
    "MAX_HEADER_BYTES": (10**8, ("header_over_the_limit", "index_over_the_limit")),
    "MAX_VALUES": (2**80, ("shape_overflows", "shape_overflows_to_the_right_size")),
    "MAX_DIGITS": (10_000, ("offset_of_5000_digits",)),
}


@pytest.mark.parametrize(
    ("check", "name"), [(check, name) for check, (_, missed) in SABOTAGE.items() for name in missed]
)
def test_an_attack_is_not_met_without_the_check(check, name, folder, monkeypatch):
    assert faults_of(attacks.ATTACKS[name], folder) is None
    shutil.rmtree(folder)
    folder.mkdir()
    monkeypatch.setattr(tensor_files, check, SABOTAGE[check][0])
    assert faults_of(attacks.ATTACKS[name], folder) is not None


def test_the_fuzzer_fails_where_overlaps_and_gaps_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_files, "_refuse_gaps", pass_over)
    sources = fuzz.read_sources()
    with pytest.raises(AssertionError, match="the official library refuses"):
        for number in range(300):
            fuzz.outcome_of(fuzz.mutate(sources, random.Random(f"test/{number}")), tmp_path)


def test_the_fuzzer_fails_where_bytes_are_read_from_another_place(tmp_path, monkeypatch):
    read_entry = tensor_files._read_entry
    monkeypatch.setattr(
        tensor_files, "_read_entry", lambda path, name, entry, base: read_entry(path, name, entry, base - 1)
    )
    monkeypatch.setattr(tensor_files, "_refuse_gaps", pass_over)
    with pytest.raises(AssertionError, match="the bytes of 'a' differ"):
        fuzz.outcome_of({attacks.SINGLE: attacks.sound(attacks.A)}, tmp_path)
