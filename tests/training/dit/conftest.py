"""A folder of tiny pictures in classes, and a config of a tiny DiT that learns them."""

import pytest
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (220, 30, 30)}
CONFIG = """train: v1
model: {{conditioning: {conditioning}, hidden_size: 16, num_layers: 2, num_attention_heads: 2, patch_size: 4}}
data: {{pictures: {pictures}, size: 8}}
training: {{steps: {steps}, batch_size: 8, learning_rate: 3e-3, ema: 0.9, checkpoint_every: 3}}
validation: {{share: 0.2, every: {every}, bins: 2}}
sampling: {{steps: 2, columns: 2}}
"""


def write_pictures(folder, count=6, side=8):
    """`count` pictures of each colour, each a little other than the rest."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (side, side), colour)
            image.putpixel((number % side, number // side), (255, 255, 255))
            image.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def config(tmp_path, pictures):
    """Writes a config, with other lines instead of some; its path."""

    def write(old="", new="", *, conditioning="adaln_zero", steps=6, every=3):
        text = CONFIG.format(conditioning=conditioning, pictures=pictures.name, steps=steps, every=every)
        assert old in text
        (tmp_path / "train.yaml").write_text(text.replace(old, new) if old else text + new)
        return tmp_path / "train.yaml"

    return write
