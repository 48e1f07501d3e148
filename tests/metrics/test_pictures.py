"""Which pictures are measured, and which are refused: all faults at once, each with its file."""

import numpy as np
import pytest
import torch
from PIL import Image

from surgery.errors import InputError
from surgery.metrics.pictures import pictures_of_tensor, read_pictures


def test_a_folder_of_pngs_is_read_as_it_was_written(make_pixels, save_folder):
    pixels = make_pixels(5)
    found = read_pictures(save_folder(pixels), role="scored")
    assert torch.equal(found.all_pixels(), pixels)
    assert found.size == (32, 32)
    assert found.names == tuple(f"{number:04d}.png" for number in range(5))
    assert [len(batch) for batch in found.batches(2)] == [2, 2, 1]


def test_the_digest_is_of_contents_not_of_names_places_or_order(make_pixels, save_folder):
    pixels = make_pixels(4)
    one = read_pictures(save_folder(pixels, "one"), role="scored")
    other = read_pictures(save_folder(pixels.flip(0), "other"), role="scored")
    assert one.digest == other.digest
    assert read_pictures(save_folder(pixels[:3], "fewer"), role="scored").digest != one.digest


def test_a_picture_that_occurs_twice_counts_twice(make_pixels):
    pixels = make_pixels(2)
    assert pictures_of_tensor(pixels[[0, 0, 1]]).digest != pictures_of_tensor(pixels[[0, 1, 1]]).digest


@pytest.mark.parametrize("suffix", [".jpg", ".png"], ids=["by its name", "called PNG"])
def test_jpegs_are_refused_where_they_are_scored(make_pixels, save_folder, suffix):
    folder = save_folder(make_pixels(2), suffix=suffix, format="JPEG")
    with pytest.raises(InputError, match=r"0000\.\w+ is JPEG, and scored pictures are PNG; .*0001\.\w+ is JPEG"):
        read_pictures(folder, role="scored")


def test_a_reference_of_jpegs_is_measured_with_a_note(make_pixels, save_folder):
    found = read_pictures(save_folder(make_pixels(2), suffix=".jpg"), role="reference")
    assert found.notes == ("2 of 2 pictures are JPEG, with its artefacts",)


def test_every_picture_that_cant_be_read_is_named(make_pixels, save_folder):
    folder = save_folder(make_pixels(4))
    (folder / "0001.png").write_bytes(b"no picture")
    truncated = folder / "0003.png"
    truncated.write_bytes(truncated.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"0001\.png can't be read: it is no picture; .*0003\.png can't be read: "):
        read_pictures(folder, role="scored")


def test_of_many_faults_the_first_ten_are_named(make_pixels, save_folder):
    folder = save_folder(make_pixels(12))
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"0009\.png can't be read: it is no picture; and 2 more$"):
        read_pictures(folder, role="scored")


def test_mixed_sizes_are_refused_with_one_picture_of_each(make_pixels, save_folder):
    folder = save_folder(make_pixels(2))
    save_folder(make_pixels(1, side=48), folder.name)
    with pytest.raises(
        InputError, match=r"2 sizes are mixed: 32 x 32 px \(.*0001\.png\), 48 x 48 px \(.*0000\.png\); pictures of one"
    ):
        read_pictures(folder, role="scored")
    with pytest.raises(InputError, match=r"say to which side they are cropped \(--crop, crop_px\)"):
        read_pictures(folder, role="reference")


def test_a_reference_of_mixed_sizes_is_cropped_as_torch_fidelity_does(save_folder):
    from torchvision import transforms

    folder = save_folder([])
    generator = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 57), (71, 33), (32, 32), (21, 64)]):
        Image.fromarray(generator.integers(256, size=(height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    found = read_pictures(folder, role="reference", crop_px=32)
    theirs = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])
    for path, pixels in zip(sorted(folder.iterdir()), found.all_pixels(), strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(theirs(image)), pixels.permute(1, 2, 0).numpy())
    assert found.fit == "shorter side to 32 px (Pillow bilinear), centre crop"


def test_scored_pictures_are_never_cropped(make_pixels, save_folder):
    with pytest.raises(InputError, match="never cropped or resized"):
        read_pictures(save_folder(make_pixels(2)), role="scored", crop_px=16)


def test_what_is_fitted_otherwise_has_another_digest(make_pixels, save_folder):
    folder = save_folder(make_pixels(2))
    digests = {read_pictures(folder, role="reference", crop_px=side).digest for side in (None, 16, 32)}
    assert len(digests) == 3


def test_folders_within_and_hidden_files(make_pixels, save_folder):
    folder = save_folder(make_pixels(2))
    save_folder(make_pixels(2, seed=1), "pictures/class")
    (folder / "._0000.png").write_bytes(b"left by another system")
    (folder / "metadata.jsonl").write_text("{}")
    assert len(read_pictures(folder, role="scored")) == 2
    assert len(read_pictures(folder, role="reference")) == 4


def test_no_pictures_is_an_error(tmp_path):
    with pytest.raises(InputError, match="is no folder of pictures"):
        read_pictures(tmp_path / "none", role="scored")
    with pytest.raises(InputError, match="holds no pictures"):
        read_pictures(tmp_path, role="scored")


def test_transparency_is_put_over_white_and_told(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    found = read_pictures(tmp_path, role="scored")
    assert found.all_pixels().unique().tolist() == [255]
    assert found.notes == ("1 of 1 pictures are transparent, and were put over white",)


def test_sixteen_bits_a_channel_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png is of Pillow's mode I;16; write it with 8 bits a channel"):
        read_pictures(tmp_path, role="scored")


def test_a_file_that_changes_while_it_is_measured_is_noticed(make_pixels, save_folder):
    folder = save_folder(make_pixels(2))
    found = read_pictures(folder, role="scored")
    save_folder(make_pixels(2, seed=1))
    with pytest.raises(InputError, match=r"0000\.png was changed while it was measured"):
        found.all_pixels()


@pytest.mark.parametrize(
    "pixels",
    [torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(0, 3, 4, 4, dtype=torch.uint8)],
    ids=["floats", "channels last", "none"],
)
def test_tensors_that_are_no_pictures_are_refused(pixels):
    with pytest.raises(InputError, match=r"pictures are uint8 of shape \(N, 3, H, W\), not "):
        pictures_of_tensor(pixels)
