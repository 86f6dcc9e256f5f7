"""Effects of dimensions: known slopes are significant, chance and invisible changes are not."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from capsnet.nn.capsnet import CapsNet
from capsnet.studies.perturbation import measure as perturbation
from capsnet.studies.perturbation.effects import (
    COLUMNS,
    MEASURES,
    Slopes,
    Sweep,
    clearest,
    effect_table,
    fit_slopes,
)

VALUES = np.array([-0.25, -0.15, 0, 0.15, 0.25])


def made_up(slopes: dict[str, float], *, num_images: int = 50, noise: float = 0.1) -> dict:
    """Measures with noise that depend on dimension 0 by these slopes and not on dimension 1.
    Unperturbed, each is 10.
    """
    random, found = np.random.default_rng(0), {}
    for name in MEASURES:
        measured = 10 + noise * random.standard_normal((num_images, 2, len(VALUES)))
        measured[:, 0] += slopes.get(name, 0) * VALUES
        found[name] = fit_slopes(measured, np.stack([VALUES] * 2))
    return found


def table(*digits: dict) -> pd.DataFrame:
    """Both dimensions keep the shape, and are moved by a quarter."""
    rest = np.full(2, 0.25), np.array([5.0, 7.0]), np.full(2, 90.0)
    return effect_table({digit: Sweep(slopes, *rest) for digit, slopes in enumerate(digits)})


def row_of(effects: pd.DataFrame, digit: int, dimension: int, measure: str) -> pd.Series:
    return effects.set_index(["digit", "dimension", "measure"]).loc[(digit, dimension, measure)]


def test_slopes_and_rank_correlations():
    """3 + 2 v rises by 2 per unit, -4 v falls by 4; a constant has no order. The same change over
    half the range is twice the slope; a dimension that is not moved has slope 0.
    """
    measured = np.stack([3 + 2 * VALUES, -4 * VALUES, np.ones(5)])[None]
    slopes = fit_slopes(measured, np.stack([VALUES] * 3))
    np.testing.assert_allclose(slopes.slope, [[2, -4, 0]], atol=1e-12)
    np.testing.assert_allclose(slopes.rank_correlation, [[1, -1, 0]])
    assert slopes.middle.tolist() == [3]
    own = fit_slopes(np.stack([VALUES] * 3)[None], np.stack([VALUES, VALUES / 2, 0 * VALUES]))
    np.testing.assert_allclose(own.slope, [[1, 2, 0]], atol=1e-12)


def test_two_sigma_values():
    """1, 2, 3 have a standard deviation of 1; equal numbers have 0."""
    poses = torch.tensor([[1.0, 5], [2, 5], [3, 5]])
    assert perturbation.two_sigma_values(poses, 5).tolist() == [[-2, -1, 0, 1, 2], [0] * 5]


def test_known_effects_have_their_size_and_sign():
    """Slope 8 from -0.25 to 0.25 is a change of 4, which is 40 % of 10; slant falls by 6."""
    effects = table(made_up({"thickness": 8.0}), made_up({"slant": -12.0}))
    assert list(effects.columns) == COLUMNS and len(effects) == 2 * 2 * len(MEASURES)
    thick, slant = row_of(effects, 0, 0, "thickness"), row_of(effects, 1, 0, "slant")
    assert thick["change"] == pytest.approx(4, rel=0.03)
    assert thick["change_percent"] == pytest.approx(40, rel=0.03)
    assert thick["slope_low"] < 8 < thick["slope_high"]
    assert thick["rank_correlation"] > 0.95 and thick["significant"]
    assert thick["name"] == "thickness +4.0 px" and thick["examples"] == 50
    assert slant["name"] == "slant \N{MINUS SIGN}6°" and np.isnan(slant["change_percent"])
    assert effects["significant"].sum() == 2
    other = effects[effects["dimension"] == 1]
    assert (other["name"] == "none").all() and other["ink_difference"].eq(7).all()


def test_what_is_invisible_or_within_chance_is_not_significant():
    """A thickness that grows by 0.2 px in each image is below half a pixel. Slopes of +-40 around 4
    in 50 images: the mean is large, its interval holds zero. One image has no interval.
    """
    grown = row_of(table(made_up({"thickness": 0.4}, noise=0.001)), 0, 0, "thickness")
    assert grown["slope_low"] > 0.39 and not grown["significant"] and grown["name"] == "none"
    slope = np.stack([4 + 40 * (-1.0) ** np.arange(50), np.zeros(50)], axis=1)
    found = made_up({}) | {"slant": Slopes(slope, np.sign(slope), np.full(50, 10.0))}
    slant = row_of(table(found), 0, 0, "slant")
    assert slant["slope_low"] < 0 < slant["slope_high"] and slant["change"] == pytest.approx(2)
    assert not slant["significant"]
    single = table(made_up({"slant": 40.0}, num_images=1))
    assert single["slope_low"].isna().all() and not single["significant"].any()


def test_the_interval_is_students():
    """Slopes 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of 2 degrees of freedom 4.3027. An
    image without ink does not count.
    """
    slope = np.array([[1.0, 0], [2, 0], [3, 0], [np.nan, 0]])
    found = made_up({}) | {"slant": Slopes(slope, slope, np.ones(4))}
    slant = row_of(table(found), 0, 0, "slant")
    assert slant["slope"] == 2 and slant["examples"] == 3
    assert slant["slope_high"] == pytest.approx(2 + 4.30265 / np.sqrt(3), rel=1e-5)


def test_a_dimension_is_named_after_its_largest_effect():
    """Dimension 0 of both digits moves 5 px to the right; of digit 1 it also thickens by 2 px. No
    other does, so thickness has the smaller root mean square over the four dimensions: 1 to 3.5.
    """
    moving = {"horizontal_centre": 10.0}
    effects = table(made_up(moving), made_up(moving | {"thickness": 4.0}))
    assert row_of(effects, 0, 0, "slant")["name"] == "moves right 5.0 px"
    assert row_of(effects, 1, 0, "slant")["name"] == "thickness +2.0 px"
    assert row_of(effects, 1, 0, "thickness")["effect"] == pytest.approx(2, rel=0.02)
    assert clearest(effects)["measure"].tolist() == ["thickness", "horizontal_centre"]


class Painter(nn.Module):
    """Decodes the first number as a box 6 px wide at zero, 20 px more for each unit."""

    def decoder(self, capsules: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        width = 6 + 20 * capsules[torch.arange(len(labels)), labels[:, 0], 0]
        away = (torch.arange(28) - 13.5).abs()
        row = (width[:, None] / 2 + 0.5 - away).clamp(0, 1)
        return ((away < 8).float()[None, :, None] * row[:, None, :])[:, None]

    decoder.num_classes = 10


def test_sweep_of_a_decoder_that_widens():
    """20 px a unit over half a unit is 10 px of 6, and the area as much; grey edges add a pixel to
    the width at most, and the ink differs by 10 of 6 columns: 167 %. The narrow end is two grey
    columns of the wide end's eleven and its half edges.
    """
    poses = torch.linspace(-0.02, 0.02, 40).repeat_interleave(2).view(40, 2)
    values = perturbation.sweep_values(0.25, 0.05)
    effects = effect_table({3: perturbation.measure_sweep(Painter(), poses, 3, values)})
    wider = row_of(effects, 3, 0, "width")
    assert wider["change"] == pytest.approx(10, rel=0.1) and wider["significant"]
    assert row_of(effects, 3, 0, "area")["change"] == pytest.approx(160, rel=0.1)
    assert wider["ink_difference"] == pytest.approx(167, rel=0.03)
    for measure in ("slant", "height", "horizontal_centre", "vertical_centre"):
        assert not row_of(effects, 3, 0, measure)["significant"]
    assert wider["shape_overlap"] == pytest.approx(200 / 11, rel=0.1) and wider["limit"] == 0.25
    still = row_of(effects, 3, 1, "width")
    assert still["name"] == "none" and still["shape_overlap"] == pytest.approx(100)


def test_a_sweep_changes_one_number_of_one_capsule_and_passes_through_zero():
    values = perturbation.sweep_values(0.25, 0.05)
    torch.testing.assert_close(values, torch.linspace(-0.25, 0.25, 11))
    torch.manual_seed(0)
    model = CapsNet(image_size=28, conv_channels=8, primary_types=2, decoder_sizes=[16])
    poses, label = torch.randn(2, 16) * 0.2, torch.tensor([[4]])
    images = perturbation.sweep(model, poses, 4, values)
    assert images.shape == (2, 16, 11, 28, 28)
    capsules = torch.zeros(1, 10, 16)
    capsules[0, 4] = poses[1]
    with torch.no_grad():
        unperturbed = model.decoder(capsules, label)[0, 0]
        capsules[0, 4, 7] += values[2]
        moved = model.decoder(capsules, label)[0, 0]
    torch.testing.assert_close(images[1, :, 5], unperturbed.expand(16, -1, -1))
    torch.testing.assert_close(images[1, 7, 2], moved)
