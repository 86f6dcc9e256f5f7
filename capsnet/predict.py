"""Read handwritten digits: python -m capsnet.predict models/multimnist.safetensors image.png ...

One line for each picture (PNG, JPEG, ...; any size, dark on light or light on dark): the digits and
the lengths of their capsules, which say from 0 to 1 how sure the network is. A network trained on
single digits names one; a network trained on two overlapping digits names one or two, those longer
than 0.5. A baseline has no capsules: its probabilities stand for their lengths.

"rejected, perhaps 7 (0.41)" means that the picture may hold no digit. No capsule is longer than
0.5, or the network's own drawing of the digits does not look like the picture, or other capsules
are about as long. A network without a decoder draws nothing, so only its lengths can tell.

A network that was wrong on more than 20 % of its test digits says so with each answer.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from capsnet.reading.handwriting import read_handwriting
from capsnet.reading.recognition import Reader, Reading, load_reader, read


def main() -> int:
    """Return the exit code: 1 if anything failed, after all that could be read was read."""
    arguments = parse()
    try:
        reader = load_reader(arguments.model)
        if arguments.figure and reader.model.decoder is None:
            raise ValueError(f"{arguments.model} has no decoder: no reconstruction for --figure")
        readings = {}
        for path, reading in read_all(reader, arguments.images):
            readings[path] = reading
            line = as_json if arguments.json else as_text
            print(line(path, reading, reader), flush=True)
        if arguments.figure and readings:
            draw(reader, readings, arguments.figure)
    except (ValueError, OSError) as error:
        complain(error)
        return 1
    return 0 if len(readings) == len(set(arguments.images)) else 1


def parse() -> argparse.Namespace:
    summary, explanation = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        prog="python -m capsnet.predict",
        description=summary.split(":")[0],
        epilog=explanation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="checkpoint of a trained network")
    parser.add_argument("images", type=Path, nargs="+", help="pictures of one or two digits")
    parser.add_argument(
        "--figure", type=Path, help="PNG to write: what the network sees and how it would draw it"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, with the lengths of all digits"
    )
    return parser.parse_args()


def read_all(reader: Reader, paths: Iterable[Path]) -> Iterable[tuple[Path, Reading]]:
    """Read every picture that can be read; of the others, say why not."""
    for path in paths:
        try:
            ink = read_handwriting(path)
        except ValueError as error:
            complain(error)
            continue
        yield path, read(reader, ink)


def as_text(path: Path, reading: Reading, reader: Reader) -> str:
    mark = "rejected, perhaps " if reading.rejected else ""
    digits = [f"{digit} ({reading.lengths[digit]:.2f})" for digit in reading.digits]
    warning = reader.error.warning(reader.num_digits) if reader.error else ""
    return f"{path}: {mark}{' and '.join(digits)}{'; ' if warning else ''}{warning}"


def as_json(path: Path, reading: Reading, reader: Reader) -> str:
    lengths = [round(float(length), 4) for length in reading.lengths]
    error, source = reader.error or (None, None)
    answer = {"image": str(path), "digits": reading.digits, "lengths": lengths}
    return json.dumps(
        answer | {"rejected": reading.rejected, "error": error, "error_source": source}
    )


def draw(reader: Reader, readings: dict[Path, Reading], path: Path) -> None:
    from capsnet.reading import (
        draw as predictions,  # matplotlib takes a second, and few ask for a figure
    )

    shown = [
        predictions.Drawing(
            image.stem,
            [f"{digit} ({reading.lengths[digit]:.2f})" for digit in reading.digits],
            reading.rejected,
            reading.image,
            reading.reconstructions,
        )
        for image, reading in readings.items()
    ]
    warning = reader.error.warning(reader.num_digits) if reader.error else ""
    predictions.drawings(shown, path, num_digits=reader.num_digits, warning=warning)


def complain(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"predict: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
