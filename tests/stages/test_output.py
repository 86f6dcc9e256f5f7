"""What stages write is rounded and can be read back."""

import pandas as pd

from stages.output import rounded, write_csv


def test_tables_are_read_back_as_written(tmp_path):
    write_csv(tmp_path / "a" / "table.csv", pd.DataFrame({"x": [1 / 3, float("nan")]}))
    assert (tmp_path / "a" / "table.csv").read_text() == 'x\n0.333333\n""\n'
    assert rounded({"a": {"b": 2 / 3}, "c": float("nan")}) == {"a": {"b": 0.666667}, "c": None}
