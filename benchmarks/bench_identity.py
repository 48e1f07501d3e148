"""An unedited variant against the original, at a size where blocks dominate. Aim: a ratio of 1.00 to 1.02."""

import diffusers
import torch
from pairs import median_ratio

from surgery.calls.example_inputs import example_call
from surgery.graph.apply import apply
from surgery.spec.load import read_spec

ROUNDS = 25


def build_pixart(num_layers: int = 12) -> torch.nn.Module:
    """A PixArt transformer of 512 channels on 256 tokens: blocks take nearly all of the time on a CPU."""
    torch.manual_seed(0)
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=8,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        num_layers=num_layers,
        cross_attention_dim=512,
        sample_size=32,
        patch_size=2,
        caption_channels=256,
        use_additional_conditions=False,
    ).eval()


@torch.no_grad()
def main() -> None:
    """Print the ratio of times, and that the outputs are the same to the bit."""
    original = build_pixart()
    variant = apply(original, read_spec("surgery: v1\noperations: []"))
    example = example_call(original, generator=torch.Generator().manual_seed(0))
    assert example is not None
    same = torch.equal(variant(**example.kwargs).sample, original(**example.kwargs).sample)
    ratio = median_ratio(lambda: variant(**example.kwargs), lambda: original(**example.kwargs), rounds=ROUNDS)
    print(f"unedited variant / original: {ratio:.3f} (median of {ROUNDS} pairs); same to the bit: {same}")


if __name__ == "__main__":
    main()
