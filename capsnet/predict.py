"""Read handwritten digits: python -m capsnet.predict models/multimnist.safetensors image.png ...

One line for each picture (PNG, JPEG, ...; any size, dark on light or light on dark): the digits and
the lengths of their capsules, which say from 0 to 1 how sure the network is. A network trained on
single digits names one; a network trained on two overlapping digits names one or two, those longer
than 0.5. Where no capsule is that long, the longest is named with a question mark. A baseline has
no capsules: its probabilities stand for their lengths.
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
            print(as_json(path, reading) if arguments.json else as_text(path, reading), flush=True)
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


def as_text(path: Path, reading: Reading) -> str:
    mark = "" if reading.is_sure else "?"
    digits = [f"{digit}{mark} ({reading.lengths[digit]:.2f})" for digit in reading.digits]
    return f"{path}: {' and '.join(digits)}"


def as_json(path: Path, reading: Reading) -> str:
    lengths = [round(float(length), 4) for length in reading.lengths]
    return json.dumps({"image": str(path), "digits": reading.digits, "lengths": lengths})


def draw(reader: Reader, readings: dict[Path, Reading], path: Path) -> None:
    from capsnet.figures import predictions  # matplotlib takes a second, and few ask for a figure

    shown = [
        predictions.Drawing(image.stem, as_text(image, reading).removeprefix(f"{image}: "),
                            reading.image, reading.reconstructions)
        for image, reading in readings.items()
    ]  # fmt: skip
    predictions.drawings(shown, path, num_digits=reader.num_digits)


def complain(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"predict: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
