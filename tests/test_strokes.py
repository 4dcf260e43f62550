"""Lines of strokes: what networks see of them."""

import numpy as np
import pytest

from clockwork.data.strokes import Line, Lines, Scale, points, scale_of, standardised


def stroke(*rows):
    return np.asarray(rows, np.float64)


LINE = Line(
    (
        stroke((-5, 9, 1e7), (1, 8, 1e7 + 0.01), (2, 7, 1e7 + 0.02), (3, 20, 1e7 + 0.03), (4, 5, 1e7 + 0.04)),
        stroke((7, 8, 1e7 + 0.5)),
        stroke((9, 1, 1e7 + 0.6), (9, 1, 1e7 + 0.6)),
    ),
    "text",
    "line.xml",
)


def test_every_third_point_of_each_stroke_from_the_upper_left_corner():
    found = points(LINE)
    np.testing.assert_allclose(
        found, [[0, 8, 0, 0], [8, 19, 0.03, 1], [12, 7, 0.5, 1], [14, 0, 0.6, 1]], atol=1e-7
    )  # the corner is that of all points, those that are not kept among them
    assert points(LINE, every=1).shape == (8, 4)
    np.testing.assert_array_equal(points(LINE, every=1)[:, 3], [0, 0, 0, 0, 1, 1, 0, 1])


def test_standardised_training_lines_have_no_mean_and_unit_variance():
    rng = np.random.default_rng(0)
    lines = [np.concatenate([rng.normal(5, 3, (n, 3)), np.ones((n, 1))], 1) for n in (40, 70)]
    scale = scale_of(lines)
    every = np.concatenate([standardised(line, scale) for line in lines])
    assert every.dtype == np.float32
    np.testing.assert_allclose(every[:, :3].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(every[:, :3].std(0), 1, atol=1e-6)
    np.testing.assert_array_equal(every[:, 3], 1)


def test_what_does_not_vary_is_not_divided_by_nothing():
    scale = scale_of([np.ones((3, 4))])
    np.testing.assert_array_equal(scale.sd, 1)
    assert np.isfinite(standardised(np.ones((3, 4)), Scale(scale.mean, scale.sd))).all()


def test_characters_are_those_of_all_sets():
    lines = [Line((stroke((0, 0, 0)),), text, "") for text in ("ba", "c", "")]
    assert Lines.of("n", "o", lines[:1], lines[1:2], lines[2:]).characters == "abc"


def test_bad_lines_are_named():
    with pytest.raises(ValueError, match=r"a line must have a stroke, got none in 'empty.xml'"):
        points(Line((), "", "empty.xml"))
    with pytest.raises(ValueError, match="every must be an integer, 1 or more, got 0"):
        points(LINE, every=0)
    with pytest.raises(ValueError, match="lines must have at least one point, got none"):
        scale_of([])
