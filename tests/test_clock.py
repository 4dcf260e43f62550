import numpy as np
import pytest

import clockwork as cw


def test_units_are_spread_as_in_the_paper():
    clock = cw.Clock.exponential(width=40, modules=9)
    assert clock.periods == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert clock.sizes == (5, 5, 5, 5, 4, 4, 4, 4, 4)
    assert clock.starts == (0, 5, 10, 15, 20, 24, 28, 32, 36)
    assert (clock.width, clock.modules, clock.cycle) == (40, 9, 256)


def test_active_modules_are_those_whose_period_divides_the_step():
    clock = cw.Clock(periods=(1, 2, 3, 5), sizes=(1, 1, 1, 1))
    assert clock.active(0).all()  # the clock starts at 0: every module ticks at the first step
    np.testing.assert_array_equal(clock.active(6), [True, True, True, False])
    np.testing.assert_array_equal(clock.active(25), [True, False, False, True])
    np.testing.assert_array_equal(clock.unit_periods, [1, 2, 3, 5])


def test_parameters_and_operations_follow_the_appendix():
    g, k, m = 5, 3, 7
    clock = cw.Clock.exponential(width=g * k, modules=g)
    n = g * k
    assert clock.recurrent_parameters == n**2 / 2 + n * k / 2
    paper = k**2 * sum((g - i) / 2**i for i in range(g)) + sum(k * m / 2**i for i in range(g))
    assert clock.multiply_adds(inputs=m, method="paper") == pytest.approx(paper)
    assert clock.multiply_adds(method="paper") <= k**2 * (2 * g - 2) + k**2 * g / 2 ** (g - 1)
    assert clock.multiply_adds(inputs=m, method="masked") == n * (n + m)
    cascade = sum(k * (i + 1) * k / 2**i + k * m / 2**i for i in range(g))
    assert clock.multiply_adds(inputs=m) == pytest.approx(cascade)


def test_the_cascade_makes_about_a_quarter_of_the_papers_operations():
    clock = cw.Clock.exponential(width=40, modules=9)
    counts = [clock.multiply_adds(method=m) for m in ("masked", "paper", "cascade")]
    assert counts == [1600, 348.6875, 94.5]


def test_the_triangle_is_counted_in_units_not_in_modules():
    # A public mistake: g (g + 1) / 2 blocks taken as weights, or unequal modules taken as equal.
    clock = cw.Clock(periods=(1, 2), sizes=(3, 1))
    assert clock.recurrent_parameters == 3 * 3 + 1 * 4


def test_a_clock_is_a_value():
    clock = cw.Clock(periods=[1, np.int64(2)], sizes=[2, 2])  # pyright: ignore[reportArgumentType]
    assert clock == cw.Clock((1, 2), (2, 2))
    assert len({clock, cw.Clock((1, 2), (2, 2))}) == 1
    with pytest.raises(AttributeError):
        clock.periods = (1, 3)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("periods", "sizes", "sentence"),
    [
        ((), (), r"at least one module, got \(\)"),
        ((0, 1), (1, 1), r"positive and in ascending order, got \(0, 1\)"),
        ((-2, 1), (1, 1), r"positive and in ascending order, got \(-2, 1\)"),
        ((1, 4, 2), (1, 1, 1), r"positive and in ascending order, got \(1, 4, 2\)"),
        ((1, 2.0), (1, 1), r"periods must be integers, got \(1, 2.0\)"),
        ((True, 2), (1, 1), r"periods must be integers, got \(True, 2\)"),
        (3, (1,), "periods must be integers, got 3"),
        ((1, 2**31), (1, 1), "periods must fit a 32-bit integer"),
        ((1, 2), (1,), r"one entry for each of the 2 periods, got \(1,\)"),
        ((1, 2), (1, 0), r"sizes must be at least 1, got \(1, 0\)"),
        ((1, 2), (1, 1.5), r"sizes must be integers, got \(1, 1.5\)"),
    ],
)
def test_impossible_clocks_are_refused(periods, sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        cw.Clock(periods, sizes)


def test_fewer_units_than_modules_are_refused():
    with pytest.raises(ValueError, match="one unit for each of the 9 modules, got 8"):
        cw.Clock.exponential(width=8, modules=9)
    with pytest.raises(ValueError, match="modules must be an integer, 1 or more, got 0"):
        cw.Clock.exponential(width=8, modules=0)
    with pytest.raises(ValueError, match="at least one module"):
        cw.Clock.even(3, ())
    with pytest.raises(ValueError, match="method must be"):
        cw.Clock((1,), (1,)).multiply_adds(method="fast")  # pyright: ignore[reportArgumentType]
