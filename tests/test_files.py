"""Files are whole at every moment and hold rounded numbers."""

import pandas as pd

from capsnet.files import rounded, write_csv


def test_tables_are_rounded_to_six_digits(tmp_path):
    write_csv(tmp_path / "a" / "table.csv", pd.DataFrame({"x": [1 / 3, float("nan")]}))
    assert (tmp_path / "a" / "table.csv").read_text() == 'x\n0.333333\n""\n'
    assert rounded({"a": {"b": 2 / 3}, "c": float("nan")}) == {"a": {"b": 0.666667}, "c": None}
