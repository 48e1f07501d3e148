"""Contributions -> factors, what LyCORIS makes of them, and the closed form of the parameters."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery.errors import InputError
from surgery.export.factors import (
    count_lokr_parameters,
    effective_factor,
    factors_of_shares,
    solve_max_factor,
    split_shape,
    to_power_of_two,
)

WIDTHS = (1152, 1536, 2240, 2304, 2432, 3072, 3840, 4608, 9728, 14592)  # of public models


def test_factors_are_what_lycoris_makes_of_them():
    functional = pytest.importorskip("lycoris.functional", reason="LyCORIS is not installed")
    for width in (*range(1, 300), *WIDTHS):
        for factor in (-1, *range(70)):
            assert effective_factor(width, factor) == functional.factorization(width, factor)[0], (width, factor)


def test_the_width_of_sd35_large_has_few_factors():
    assert sorted({effective_factor(2432, factor) for factor in range(1, 39)}) == [1, 2, 4, 8, 16, 19, 32, 38]
    assert {effective_factor(2432, factor) for factor in range(8, 16)} == {8}


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("width", WIDTHS)
def test_powers_of_two_up_to_32_are_exact_for_public_models(width, factor):
    assert effective_factor(width, factor) == factor


def test_the_number_of_parameters_is_the_closed_form():
    assert count_lokr_parameters((2432, 2432), 4) == 4 * 4 + 608 * 608
    assert count_lokr_parameters((14592, 2432), 6) == 6 * 4 + 2432 * 608
    assert count_lokr_parameters((11200, 1, 3, 3), 8) == 8 * 1 + 1400 * 9
    assert split_shape((14592, 2432), 6) == (6, 4)


@given(st.lists(st.floats(0, 1), min_size=1), st.integers(1, 32))
def test_a_larger_share_never_has_a_larger_factor(shares, max_factor):
    factors = factors_of_shares(sorted(shares), max_factor)
    assert list(factors) == sorted(factors, reverse=True)
    assert all(1 <= factor <= max_factor for factor in factors)


def test_ends_and_halves_of_the_scale():
    assert factors_of_shares([0, 0.5, 1], 12) == (12, 6, 1)  # 6.5 is rounded to the even 6
    assert factors_of_shares([0, 0.5, 0.5], 10, critical={2}) == (10, 6, 1)  # 5.5 too


@pytest.mark.parametrize(("factor", "power"), [(1, 1), (2, 2), (3, 4), (5, 4), (6, 8), (11, 8), (12, 16), (32, 32)])
def test_the_nearest_power_of_two(factor, power):
    assert to_power_of_two(factor) == power


def test_the_budget_is_used_as_far_as_it_goes():
    counts = {1: 900, 2: 500, 3: 500, 4: 300}
    assert solve_max_factor(lambda factor: counts[factor], 600, largest=4) == 2
    assert solve_max_factor(lambda factor: counts[factor], 300, largest=4) == 4
    with pytest.raises(InputError, match=re.escape("no factor up to 4 trains 299 parameters or fewer")):
        solve_max_factor(lambda factor: counts[factor], 299, largest=4)
