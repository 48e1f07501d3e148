"""Groups of layers: the cut is the best of all cuts, planted groups are found, and short stacks are told."""

import itertools

import numpy as np
import pytest

from surgery.errors import InputError
from surgery.profiles.groups import AUTO_GROUPS, cut_into_runs, even_drift, find_groups, run_costs, silhouette_width

STACK = "transformer_blocks"
TEXT, IMAGE = "encoder_hidden_states", "hidden_states"


def random_kernel(seed, size):
    vectors = np.random.default_rng(seed).normal(size=(size, 5)).cumsum(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


def planted(sizes, inside=0.9, outside=0.3):
    """Similarity `inside` within runs of these sizes, `outside` between them."""
    member = np.repeat(np.arange(len(sizes)), sizes)
    kernel = np.where(member[:, None] == member[None], inside, outside)
    np.fill_diagonal(kernel, 1)
    return kernel


def with_embedding(kernel):
    """The matrix of states: an input before the outputs, unlike any of them."""
    states = np.zeros((len(kernel) + 1,) * 2)
    states[1:, 1:], states[0, 0] = kernel, 1
    return states


def cost_of(kernel, starts):
    """The slow, obvious cost."""
    total = 0.0
    for start, end in zip(starts, (*starts[1:], len(kernel)), strict=True):
        members = range(start, end)
        total += sum(kernel[i, i] for i in members) - sum(kernel[i, j] for i in members for j in members) / len(members)
    return total


def least_cost(kernel, num_runs):
    """By trying all cuts."""
    cuts = itertools.combinations(range(1, len(kernel)), num_runs - 1)
    return min(cost_of(kernel, (0, *cut)) for cut in cuts)


@pytest.mark.parametrize("seed", range(8))
def test_no_cut_is_cheaper(seed):
    size = 4 + seed
    kernel = random_kernel(seed, size)
    for num_runs in range(1, size + 1):
        starts = cut_into_runs(kernel, num_runs)
        assert len(starts) == num_runs and list(starts) == sorted(set(starts)) and starts[0] == 0
        assert cost_of(kernel, starts) == pytest.approx(least_cost(kernel, num_runs), abs=1e-10)


def test_the_comparison_sees_a_cut_that_is_not_the_best():
    """The saboteur of the test above."""
    kernel = random_kernel(0, 8)
    first, second, *rest = cut_into_runs(kernel, 3)
    worse = (first, second + 1 if second + 1 not in rest else second - 1, *rest)
    assert cost_of(kernel, worse) > least_cost(kernel, 3) + 1e-6


def test_the_cost_of_a_run_is_its_scatter():
    vectors = np.random.default_rng(0).normal(size=(7, 3))
    costs = run_costs(vectors @ vectors.T)
    for start, end in itertools.combinations(range(8), 2):
        inside = vectors[start:end]
        assert costs[start, end] == pytest.approx(((inside - inside.mean(0)) ** 2).sum(), abs=1e-9)
    assert np.isinf(costs[3, 3]) and np.isinf(costs[4, 2])


def test_the_silhouette_is_that_of_the_paper():
    kernel = random_kernel(3, 9)
    starts = (0, 1, 5)
    member = np.repeat([0, 1, 2], [1, 4, 4])
    widths = []
    for i in range(9):
        own = [j for j in range(9) if member[j] == member[i] and j != i]
        if not own:
            widths.append(0.0)
            continue
        a = np.mean([1 - kernel[i, j] for j in own])
        b = min(np.mean([1 - kernel[i, j] for j in range(9) if member[j] == k]) for k in {0, 1, 2} - {member[i]})
        widths.append((b - a) / max(a, b))
    assert silhouette_width(kernel, starts) == pytest.approx(np.mean(widths), abs=1e-12)
    assert silhouette_width(np.ones((4, 4)), (0, 2)) == 0


@pytest.mark.parametrize("num_runs", [2, 3, 5])
def test_an_even_drift_has_no_groups_and_a_silhouette_all_the_same(made, num_runs):
    turned = np.linspace(0, 1.5, 20)
    kernel = np.cos(turned[:, None] - turned[None])
    groups = find_groups(made.profile_of_similarity({IMAGE: with_embedding(kernel)}, 20), STACK, num_groups=num_runs)
    assert np.allclose(even_drift(kernel), kernel)
    assert groups.silhouette == pytest.approx(groups.even_drift) and groups.even_drift > 0.5
    clear = find_groups(made.profile_of_similarity({IMAGE: with_embedding(planted([5, 7, 8]))}, 20), STACK)
    assert clear.silhouette > clear.even_drift + 0.3


def test_first_middle_and_last_are_found_where_they_were_planted(made):
    profile = made.profile_of_similarity({IMAGE: with_embedding(planted([3, 7, 2]))}, 12)
    groups = find_groups(profile, STACK)
    assert groups.by_name == {"first": range(3), "middle": range(3, 10), "last": range(10, 12)}
    assert groups.selector("middle") == "transformer_blocks[3:10]"
    assert groups.streams == (IMAGE,)


@pytest.mark.parametrize("sizes", [[5, 7], [3, 7, 2], [2, 5, 4, 3], [4, 4, 4, 4, 4], [2, 3, 4, 5, 6, 7, 8, 9]])
def test_the_number_of_groups_is_found(made, sizes):
    profile = made.profile_of_similarity({IMAGE: with_embedding(planted(sizes))}, sum(sizes))
    groups = find_groups(profile, STACK, num_groups="auto")
    assert [len(run) for run in groups.runs] == sizes
    given = find_groups(profile, STACK, num_groups=len(sizes))
    assert given == groups and groups.silhouette == pytest.approx((0.7 - 0.1) / 0.7)


def test_several_inner_groups_are_numbered_and_are_the_middle_together(made):
    profile = made.profile_of_similarity({IMAGE: with_embedding(planted([2, 3, 4, 3]))}, 12)
    groups = find_groups(profile, STACK, num_groups=4)
    assert groups.names == ("first", "middle-1", "middle-2", "last")
    assert groups.by_name["middle"] == range(2, 9) and groups.selector("middle-2") == "transformer_blocks[5:9]"
    assert find_groups(profile, STACK, num_groups=2).names == ("first", "last")
    with pytest.raises(
        InputError, match=r'no group "midle" in .*; there are first, middle-1, .* did you mean "middle"'
    ):
        groups.find("midle")


def test_a_stack_has_the_groups_of_its_streams_together_or_of_one(made):
    kernels = {TEXT: with_embedding(planted([2, 8, 2])), IMAGE: with_embedding(planted([5, 4, 3]))}
    profile = made.profile_of_similarity(kernels, 12)
    assert find_groups(profile, STACK, stream=TEXT).starts == (0, 2, 10)
    assert find_groups(profile, STACK, stream=IMAGE).starts == (0, 5, 9)
    both = made.profile_of_similarity({"x": (kernels[TEXT] + kernels[IMAGE]) / 2}, 12)
    assert find_groups(profile, STACK).starts == find_groups(both, STACK).starts


def test_a_block_that_does_not_return_every_stream_joins_the_last_group(made):
    image = with_embedding(planted([3, 7, 2]))
    profile = made.profile_of_similarity({TEXT: image[:-1, :-1], IMAGE: image}, 12)
    assert find_groups(profile, STACK).by_name["last"] == range(10, 12)
    assert find_groups(profile, STACK, stream=TEXT).by_name["last"] == range(10, 12)


@pytest.mark.parametrize("num_blocks", [3, 4])
def test_short_stacks_have_groups_of_one_layer(made, num_blocks):
    profile = made.make_profile([(STACK, num_blocks)])
    groups = find_groups(profile, STACK)
    assert sum(map(len, groups.runs)) == num_blocks and all(groups.runs)
    assert find_groups(profile, STACK, num_groups="auto").starts[0] == 0


def test_layers_that_are_all_alike_are_cut_all_the_same(made):
    profile = made.profile_of_similarity({IMAGE: np.ones((9, 9))}, 8)
    assert find_groups(profile, STACK).starts == (0, 1, 2)
    assert find_groups(profile, STACK, num_groups="auto").starts == (0, 1)


@pytest.mark.parametrize(
    ("num_blocks", "options", "message"),
    [
        (2, {}, "has 2 blocks with a measured output, which can't be cut into 3 groups; ask for fewer"),
        (2, {"num_groups": "auto"}, "can't be cut into groups; 3 or more are needed"),
        (4, {"num_groups": 5}, "can't be cut into 5 groups; ask for fewer"),
        (4, {"num_groups": 1}, "1 is no number of groups"),
        (4, {"stream": "text"}, "no stream text of transformer_blocks; it has hidden_states"),
    ],
)
def test_what_can_not_be_cut_is_told(made, num_blocks, options, message):
    with pytest.raises(InputError, match=message):
        find_groups(made.make_profile([(STACK, num_blocks)]), STACK, **options)


def test_an_unknown_stack_and_a_profile_of_nothing_are_told(made):
    with pytest.raises(InputError, match="no stack blocks; it has transformer_blocks"):
        find_groups(made.make_profile(), "blocks")
    with pytest.raises(InputError, match="nothing was counted in transformer_blocks"):
        find_groups(made.make_profile(empty_bins=range(4)), STACK)


def test_auto_looks_at_two_to_eight_groups(made):
    assert (min(AUTO_GROUPS), max(AUTO_GROUPS)) == (2, 8)
    profile = made.profile_of_similarity({IMAGE: with_embedding(planted([2] * 10))}, 20)
    assert len(find_groups(profile, STACK, num_groups="auto").starts) <= 8
