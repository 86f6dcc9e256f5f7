"""How stages write: numbers rounded, files whole at every moment."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from capsnet.files import replace_file

DIGITS = 6  # significant digits: more differ from machine to machine and say nothing


def rounded(value: object) -> object:
    """Round every float of a nested mapping; NaN becomes None, which JSON can say."""
    if isinstance(value, Mapping):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def write_text(path: Path, text: str) -> None:
    replace_file(path, text.encode())


def write_json(path: Path, values: Mapping[str, object]) -> None:
    write_text(path, json.dumps(rounded(values), indent=2) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n"))
