"""Profiles made up for tests: of states that are given, or that wander from block to block, in groups if asked."""

import numpy as np

from surgery.profiles.layer_profile import Profile, ProfiledStack, no_sums

TEXT, IMAGE = "encoder_hidden_states", "hidden_states"
BRANCHES = ("conditional", "unconditional")


def sums_of_states(states, empty_bins=()):
    """The sums over one sample a bin; states (bins, S, tokens, channels)."""
    num_bins, num_states, num_tokens, _ = states.shape
    sums = no_sums(num_bins, num_states)
    for number in set(range(num_bins)) - set(empty_bins):
        tokens = states[number]
        unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
        flat = tokens.reshape(num_states, -1)
        flat = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
        cosines = np.clip(np.einsum("atd,btd->abt", unit, unit), -1, 1)
        sums.samples[number], sums.tokens[number], sums.angles[number] = 1, num_tokens, num_tokens
        sums.cosine[number] = flat @ flat.T
        sums.token_cosine[number] = cosines.sum(-1)
        sums.angle[number] = (np.arccos(cosines) / np.pi).sum(-1)
        steps = np.linalg.norm(np.diff(tokens, axis=0), axis=-1)
        sums.residual[number] = (steps / np.linalg.norm(tokens[:-1], axis=-1)).sum(-1)
    return sums


def wandering_states(rng, num_states, *, num_bins=4, num_tokens=6, channels=32, starts=(), step=0.15, jump=1.5):
    """States that move a little at each block, and far at the blocks in `starts`: block i leads to state i + 1."""
    sizes = np.full(num_states - 1, step)
    sizes[[start for start in starts if start < num_states - 1]] = jump
    moves = rng.normal(size=(num_bins, num_states, num_tokens, channels))
    moves[:, 1:] *= sizes[:, None, None]
    return moves.cumsum(1)


def make_profile(
    stacks=(("transformer_blocks", 12),),
    *,
    streams=(IMAGE,),
    starts=(),
    num_bins=4,
    empty_bins=(),
    branches=("conditional",),
    text_ends_early=False,
    seed=0,
    **recipe,
):
    """A profile of stacks (name, number of blocks); with `text_ends_early` the last block returns no text."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, num_blocks in stacks:
        for stream in streams:
            num_states = num_blocks + (not (text_ends_early and stream == TEXT))
            for branch in branches:
                states = wandering_states(rng, num_states, num_bins=num_bins, starts=starts)
                found[name, stream, branch] = sums_of_states(states, empty_bins)
    known = tuple(ProfiledStack(name, num_blocks, tuple(streams)) for name, num_blocks in stacks)
    recipe = {"mode": "trajectories", "token": "all", "samples": ["0:a", "1:b"], **recipe}
    return Profile(recipe, known, num_bins, found, {})


def profile_of_similarity(kernels, num_blocks, stack="transformer_blocks"):
    """A profile of one stack whose similarity matrices are given: by stream, (S, S)."""
    found = {}
    for stream, kernel in kernels.items():
        sums = no_sums(1, len(kernel))
        sums.samples[:] = sums.tokens[:] = sums.angles[:] = 1
        sums.cosine[0], sums.token_cosine[0] = kernel, kernel
        sums.angle[0] = np.arccos(np.clip(kernel, -1, 1)) / np.pi
        found[stack, stream, "conditional"] = sums
    return Profile({"samples": ["0:a"]}, (ProfiledStack(stack, num_blocks, tuple(kernels)),), 1, found, {})


def profile_of_angles(heatmaps, num_blocks, stack="transformer_blocks"):
    """A profile of one stack whose angular distances are given: by stream, (bins, layers). Rows of NaN are empty bins.

    All other numbers are those of states on a circle, a layer turning them by its mean distance.
    """
    found, num_bins = {}, 0
    for stream, heatmap in heatmaps.items():
        num_bins, num_layers = heatmap.shape
        sums = no_sums(num_bins, num_layers + 1)
        filled = ~np.isnan(heatmap).all(axis=1)
        turned = np.concatenate([[0.0], np.nanmean(heatmap, axis=0).cumsum()]) * np.pi
        cosines = np.cos(turned[:, None] - turned[None])
        sums.angles[filled] = sums.samples[filled] = sums.tokens[filled] = 1
        sums.cosine[filled] = sums.token_cosine[filled] = cosines
        sums.angle[filled] = np.arccos(np.clip(cosines, -1, 1)) / np.pi
        layers = np.arange(num_layers)
        sums.angle[:, layers, layers + 1] = np.where(filled[:, None], heatmap, 0)
        sums.residual[filled] = 2 * np.sin(heatmap[filled] * np.pi / 2)
        found[stack, stream, "conditional"] = sums
    return Profile({"samples": ["0:a"]}, (ProfiledStack(stack, num_blocks, tuple(heatmaps)),), num_bins, found, {})
