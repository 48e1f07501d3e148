"""Segments and byte plans: rows become runs of bytes, aligned, joined, in shards that hold everything once."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.anatomy.tensor_files import StoredTensor, TensorFile, Weights, read_header
from surgery.checkpoint.byte_plan import Copied, parse_size, plan_bytes
from surgery.checkpoint.new_checkpoint import NewCheckpoint, NewTensor, Segment, join_segments, new_checkpoint_from_json
from surgery.errors import InputError

SIZES = {"F64": 8, "F32": 4, "BF16": 2, "U8": 1}


def file_of(path, *tensors):
    """A file (that is not there) of tensors (name, dtype, shape), in this order."""
    entries, position = {}, 100
    for name, dtype, shape in tensors:
        size = SIZES[dtype]
        for length in shape:
            size *= length
        entries[name] = StoredTensor(name, dtype, shape, position, position + size)
        position += size
    return TensorFile(path, position, 0, entries, {})


def whole(name, rows):
    return NewTensor(name, (Segment(name, 0, rows),))


segments = st.builds(
    Segment,
    tensor=st.sampled_from(["a", "b"]),
    start=st.integers(0, 5),
    stop=st.integers(6, 9),
    change=st.sampled_from(["keep", "zero"]),
)


def rows_of(found):
    return [(s.tensor, row, s.change, s.by, s.mean) for s in found for row in range(s.start, s.stop)]


@given(st.lists(segments, max_size=6))
def test_joined_segments_are_the_same_rows_and_can_not_be_joined_again(found):
    joined = join_segments(found)
    assert rows_of(joined) == rows_of(found)
    assert join_segments(list(joined)) == joined
    assert not any(after.continues(before) for before, after in itertools.pairwise(joined))


@given(segments, st.data())
def test_a_segment_is_the_join_of_its_parts(segment, data):
    cut = data.draw(st.integers(1, segment.num_rows - 1)) if segment.num_rows > 1 else 1
    parts = [segment.part(0, cut), *([segment.part(cut, segment.num_rows)] if cut < segment.num_rows else [])]
    assert join_segments(parts) == (segment,)


def test_parts_of_a_mean_go_on_in_its_vector():
    segment = Segment("bias", 4, 10, "mean", mean="c/s", mean_start=0)
    first, second = segment.part(0, 2), segment.part(2, 6)
    assert (second.start, second.mean_start) == (6, 2) and second.continues(first)
    assert join_segments([first, second]) == (segment,)
    assert not segment.part(3, 6).continues(first)


@given(st.lists(st.builds(NewTensor, st.text(min_size=1), st.tuples(segments, segments)), max_size=3))
def test_a_new_checkpoint_survives_json(tensors):
    tensors = tuple({tensor.name: tensor for tensor in tensors}.values())
    new = NewCheckpoint({"num_layers": 3}, tensors, ("x",), {"s.1": 2}, ("y",))
    assert new_checkpoint_from_json(json.loads(json.dumps(new.to_json()))) == new


def test_what_lies_together_is_one_run():
    file = file_of("f", *((name, "F32", (2, 3)) for name in "abcd"))
    weights = Weights((file,))
    plan = plan_bytes(NewCheckpoint({}, tuple(whole(name, 2) for name in "dbc")), weights)
    assert plan.shards[0].pieces() == [Copied(file, 124, 72)]  # b, c and d, whatever order they are asked in
    apart = plan_bytes(NewCheckpoint({}, tuple(whole(name, 2) for name in "abd")), weights)
    assert [piece.size_bytes for piece in apart.shards[0].pieces()] == [48, 24]


def test_wider_values_come_first_so_that_all_are_aligned():
    file = file_of("f", ("bytes", "U8", (3,)), ("halves", "BF16", (3,)), ("floats", "F32", (3,)), ("long", "F64", (1,)))
    (shard,) = plan_bytes(
        NewCheckpoint({}, tuple(whole(n, 3 if n != "long" else 1) for n in file.tensors)), Weights((file,))
    ).shards
    position = 0
    for tensor in shard.tensors:
        assert position % SIZES[tensor.dtype] == 0
        position += tensor.size_bytes
    assert [tensor.name for tensor in shard.tensors] == ["long", "floats", "halves", "bytes"]
    assert len(shard.header({"format": "pt"})) % 8 == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 60))
def test_shards_hold_everything_once_and_none_is_too_large_but_for_one_tensor(lengths, limit):
    file = file_of("f", *((f"t{number}", "U8", (length,)) for number, length in enumerate(lengths)))
    tensors = tuple(whole(name, tensor.shape[0]) for name, tensor in file.tensors.items())
    plan = plan_bytes(NewCheckpoint({}, tensors), Weights((file,)), max_shard_size=limit)
    names = [tensor.name for shard in plan.shards for tensor in shard.tensors]
    assert sorted(names) == sorted(file.tensors)
    assert all(shard.size_bytes <= limit or len(shard.tensors) == 1 for shard in plan.shards)
    assert (plan.index is None) == (len(plan.shards) == 1) and plan.size_bytes == sum(lengths)
    assert json.loads(plan.index_text())["weight_map"].keys() == set(names)


def test_the_header_is_read_back(tmp_path):
    file = file_of("f", ("a", "F32", (2, 3)), ("scalar", "F32", ()))
    plan = plan_bytes(NewCheckpoint({}, (whole("scalar", 1), whole("a", 2))), Weights((file,)))
    path = tmp_path / plan.shards[0].name
    path.write_bytes(plan.shards[0].header({"format": "pt", "note": "é"}) + bytes(plan.size_bytes))
    found = read_header(path)
    assert found.metadata == {"format": "pt", "note": "é"}
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == {"a": (2, 3), "scalar": ()}


@pytest.mark.parametrize(
    ("text", "size"), [("10GB", 10**10), ("500mb", 5 * 10**8), ("2GiB", 2**31), ("1.5 kB", 1500), (70, 70), ("7", 7)]
)
def test_sizes_are_decimal_as_diffusers_counts_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "ten GB", "-1GB", "0", "0GB", "5XB", "1e9", "5GB5"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is no size of a shard; write one like 10GB, 500MB or 2GiB"):
        parse_size(text)


def test_rows_of_different_kinds_are_not_joined():
    file = file_of("f", ("a", "F32", (2, 3)), ("b", "BF16", (2, 3)))
    mixed = NewTensor("new", (Segment("a", 0, 1), Segment("b", 0, 1)))
    with pytest.raises(InputError, match="new would join a and b, which are of different kinds"):
        plan_bytes(NewCheckpoint({}, (mixed,)), Weights((file,)))


def file_of_odd_sizes():
    """A file of two tensors whose rows are not whole bytes: of half bytes, and of a dtype that nobody knows."""
    halves = StoredTensor("halves", "F4", (2, 3), 100, 103)
    unknown = StoredTensor("unknown", "F9", (0, 2), 103, 108)
    return TensorFile("f", 108, 0, {"halves": halves, "unknown": unknown}, {})


def test_a_whole_tensor_is_copied_whatever_its_rows_are():
    plan = plan_bytes(NewCheckpoint({}, (whole("halves", 2), whole("unknown", 0))), Weights((file_of_odd_sizes(),)))
    sizes = {tensor.name: (tensor.shape, tensor.size_bytes) for tensor in plan.shards[0].tensors}
    assert sizes == {"halves": ((2, 3), 3), "unknown": ((0, 2), 5)}


def test_a_part_of_rows_that_are_not_whole_bytes_is_refused():
    part = NewTensor("new", (Segment("halves", 0, 1),))
    with pytest.raises(InputError, match="f: 'halves' is of dtype 'F4', whose rows are not whole bytes"):
        plan_bytes(NewCheckpoint({}, (part,)), Weights((file_of_odd_sizes(),)))
