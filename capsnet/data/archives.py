"""Four archives like MNIST's and their format, gzipped IDX.

IDX (http://yann.lecun.com/exdb/mnist): two zero bytes, a type code (8 = unsigned byte), the number
of dimensions, one big-endian 32-bit size per dimension, then the bytes.
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
TEN_DIGITS = tuple("0123456789")  # the classes of MNIST
MAGIC = b"\0\0\x08"


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX archive of unsigned bytes. Raises ValueError for a damaged one."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro download`") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a whole gzip file ({error}): run `dvc repro download`"
        ) from None
    if len(data) < 4 or data[:3] != MAGIC:
        raise ValueError(f"{path}: starts with {data[:4].hex()}, but IDX bytes start with 000008")
    start = 4 + 4 * data[3]
    shape = struct.unpack_from(f">{data[3]}I", data, 4) if len(data) >= start else ()
    found, expected = max(0, len(data) - start), math.prod(shape)
    if found != expected:
        raise ValueError(f"{path}: {found:,} bytes of data, but its header says {expected:,}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped IDX archive; the same array gives the same bytes."""
    header = MAGIC + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))
