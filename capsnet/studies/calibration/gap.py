"""Expected calibration error of a reliability table."""

import pandas as pd


def calibration_error(bins: pd.DataFrame, group: str = "predicted digits") -> tuple[float, str]:
    """Expected calibration error in percent (Guo et al. 2017, Eq. 3) of one group of the bins, and
    its direction: "overconfident" where lengths are mostly larger than frequencies.
    """
    bins = bins[bins["group"] == group]
    gaps = (100 * bins["length"] - bins["there"]) * bins["examples"] / bins["examples"].sum()
    return float(gaps.abs().sum()), "overconfident" if gaps.sum() > 0 else "underconfident"
