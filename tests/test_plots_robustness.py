"""The curves of robustness: a readable PNG, the same bytes for the same input, honest titles."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capsnet.studies.robustness import draw as robustness
from capsnet.studies.robustness.draw import PANELS, place_of_zero, robustness_curves, verdict

AMOUNTS = {
    "rotation": [-60, -20, 0, 20, 60],
    "shear": [-0.2, 0, 0.2],
    "scale": [0.8, 1, 1.2],
    "translation": [0, 4],
}


def table(factor: float) -> pd.DataFrame:
    """1 % wrong as they are, twice that at the first amount of each transform and so on."""
    rows = [("affnist_like", np.nan, 5 * factor)]
    for transform, amounts in AMOUNTS.items():
        rows += [(transform, amount, factor * (1 + n)) for n, amount in enumerate(amounts)]
    frame = pd.DataFrame(rows, columns=["transform", "amount", "error"])
    low, high = frame["error"] / 2, frame["error"] * 1.5
    return frame.assign(unit="", examples=1000, error_low=low, error_high=high)


CASES = {
    "one run": {"mnist": table(1)},
    "a baseline": {"mnist": table(1), "baseline": table(2)},
    "never wrong": {"mnist": table(0)},
    "always wrong": {"mnist": table(1).assign(error=100, error_low=99, error_high=100)},
    "many runs": {f"a_run_with_a_long_name_{n}": table(n) for n in range(6)},
}


@pytest.mark.parametrize("name", CASES)
def test_readable_repeatable_and_harmless(name, tmp_path):
    tables = CASES[name]
    before = {run: frame.copy() for run, frame in tables.items()}
    for file in ("first.png", "second.png"):
        assert robustness_curves(tables, tmp_path / file, title="What there is to see") is None
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert all(frame.equals(before[run]) for run, frame in tables.items())
    with Image.open(tmp_path / "first.png") as image:
        assert image.size == (1920, 1360)
        assert len(image.convert("RGB").getcolors(1 << 16)) > 20


def test_titles_say_the_error_at_the_end_of_affnists_range():
    """Rotated by -20 and 20 degrees 2 and 4 % are wrong, 3 % on average; of the second run twice
    as many."""
    rows = [frame[frame["transform"] == "rotation"] for frame in (table(1), table(2))]
    panel = PANELS["rotation"]
    assert verdict({"mnist": rows[0]}, panel) == "3.0 % wrong if rotated by 20 degrees"
    both = verdict({"baseline": rows[1], "mnist": rows[0]}, panel)
    assert both == "If rotated by 20 degrees:\n3.0 % (mnist) to 6.0 % (baseline)"


def test_zero_stands_below_every_interval():
    assert place_of_zero(table(1)) == 0.25  # half of the lowest end, 0.5 %
    assert place_of_zero(table(0)) == 0.5


def test_no_runs_are_an_error_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: no runs to draw"):
        robustness.robustness_curves({}, tmp_path / "none.png", title="Nothing")
    assert not list(tmp_path.iterdir())
