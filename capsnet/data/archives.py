"""MNIST's four archives: their names, and the IDX format that they are written in.

The format (http://yann.lecun.com/exdb/mnist, "FILE FORMATS"): two zero bytes, a type code (8 =
unsigned byte), the number of dimensions, one big-endian 32-bit size per dimension, then the bytes.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

ARCHIVES = {  # split -> (images, labels)
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
NUM_CLASSES = 10
UNSIGNED_BYTE = 8


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX archive of unsigned bytes.

    Raises ValueError, naming the file, if it is not gzip, not IDX, or shorter or longer than its
    header says.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{path} is missing: run `dvc repro download`") from None
        raise ValueError(
            f"{path} is not a whole gzip file ({error}): run `dvc repro download`"
        ) from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UNSIGNED_BYTE:
        raise ValueError(
            f"{path}: starts with {data[:4].hex()}, but an IDX file of bytes starts with 000008"
        )
    num_dimensions = data[3]
    start = 4 + 4 * num_dimensions
    shape = struct.unpack_from(f">{num_dimensions}I", data, 4) if len(data) >= start else ()
    expected = math.prod(shape)
    if len(data) - start != expected:
        raise ValueError(
            f"{path}: {max(0, len(data) - start):,} bytes of data, but its header says {expected:,}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped IDX archive; the same array gives the same bytes."""
    header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))
