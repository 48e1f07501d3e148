"""The SD3.5 study as a profile: its heat maps, recovered from the published figures.

`python tests/sd35_large.py FILE.safetensors` writes the profile.
"""

import sys
from pathlib import Path

import numpy as np

from surgery.profiles.layer_profile import Profile, ProfiledStack, no_sums
from surgery.profiles.profile_file import write_profile

DATA = Path(__file__).parent / "data" / "sd35-large"
STACK = "transformer_blocks"
TEXT, IMAGE = "encoder_hidden_states", "hidden_states"
FACTORS = (
    *(1, 4, 6, 11, 9, 10, 10, 11, 12, 11, 11, 11, 11, 11, 10, 9, 10, 9, 8),
    *(6, 7, 6, 7, 6, 6, 6, 6, 5, 6, 5, 4, 1, 6, 4, 4, 1, 4, 4),
)  # of the published config, by layer


def read_heatmap(name):
    """(10, 38) of `image`, (10, 37) of `text`."""
    rows = (DATA / f"angular_{name}.csv").read_text().splitlines()[1:]
    return np.array([[float(cell) for cell in row.split(",")[1:]] for row in rows])


def profile_of(heatmaps, num_blocks, stack=STACK, recipe=None):
    """A profile of one stack whose angular distances are these: by stream, (bins, layers)."""
    streams = {}
    num_bins = 0
    for stream, heatmap in heatmaps.items():
        num_bins, num_layers = heatmap.shape
        sums = no_sums(num_bins, num_layers + 1)
        filled = ~np.isnan(heatmap).all(axis=1)
        sums.angles[filled] = 1  # all else was not published, and is not counted
        layers = np.arange(num_layers)
        sums.angle[:, layers, layers + 1] = np.where(filled[:, None], heatmap, 0)
        streams[stack, stream, "conditional"] = sums
    known = (ProfiledStack(stack, num_blocks, tuple(heatmaps)),)
    return Profile(recipe or {"samples": []}, known, num_bins, streams, {})


def profile_of_the_study():
    """38 blocks; the text stream ends before the last."""
    return profile_of({TEXT: read_heatmap("text"), IMAGE: read_heatmap("image")}, 38)


if __name__ == "__main__":
    write_profile(profile_of_the_study(), sys.argv[1])
