"""Name what pictures show with a trained network.

One line for each picture (PNG, JPEG, ...; any size): its classes and the lengths of their capsules,
from 0 to 1. The network is a checkpoint named first or, without one, pretrained/mnist.safetensors,
which reads handwritten digits, dark on light or light on dark. A picture is prepared as those that
the network learned. A network for one object names one class, a network for pairs (--pairs) one or
two, those longer than 0.5; it learned only pairs and often names two where there is one. A baseline
gives probabilities for lengths.

"rejected, perhaps 7 (0.41): <reason>" means that the picture may show none of the classes: no
capsule is longer than 0.5, the reconstruction does not resemble the picture, another capsule is a
rival, or the picture holds several marks of about the same size.
Without a decoder only the lengths decide. A network with an error above 20 % says so each time.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m capsnet.predict` in the repository root")

import argparse
import json
import sys
from pathlib import Path

from capsnet import program_parser
from capsnet.paths import pretrained
from capsnet.reading.recognition import Reader, Reading, answer, load_reader, read_file


def main() -> int:
    """Return the exit code: 1 if anything failed, after all readable pictures are read."""
    arguments = parse()
    try:
        reader = load_reader(arguments.model)
        if arguments.figure and reader.model.decoder is None:
            raise ValueError(f"{arguments.model} has no decoder: no reconstruction for --figure")
        line = as_json if arguments.json else as_text
        readings, failed = {}, False
        for path in arguments.images:
            try:
                readings[path] = read_file(reader, path)
                print(line(path, readings[path], reader), flush=True)
            except ValueError as error:
                print(f"predict: {error}", file=sys.stderr)
                failed = True
        if arguments.figure and readings:
            from capsnet.plots.canvas import NOUN  # matplotlib takes a second to import
            from capsnet.reading.draw import drawings

            NOUN.set(reader.about.noun)
            shown = {"num_digits": reader.num_digits, "warning": reader.warning}
            drawings(readings, arguments.figure, **shown)
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 1
    return int(failed)


def parse() -> argparse.Namespace:
    parser = program_parser(__spec__.name, __doc__, "photo.png")
    words = "pictures of one or two objects; a checkpoint (.safetensors) may stand before them"
    parser.add_argument("images", type=Path, nargs="+", metavar="picture", help=words)
    parser.add_argument(
        "--pairs", action="store_true", help="use the pretrained network for two overlapping digits"
    )
    parser.add_argument(
        "--figure", type=Path, help="PNG to write: what was taken, inputs, reconstructions"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, all lengths")
    arguments = parser.parse_intermixed_args()
    arguments.model = pretrained(2 if arguments.pairs else 1)
    if arguments.images[0].suffix == ".safetensors":
        arguments.model, *arguments.images = arguments.images
        if arguments.pairs:
            parser.error("--pairs: the checkpoint decides whether it reads one object or two")
    if not arguments.images:
        parser.error("wanted a picture")
    return arguments


def as_text(path: Path, reading: Reading, reader: Reader) -> str:
    found = " and ".join(reading.lines())
    if reading.rejected:
        found = f"rejected, perhaps {found}: {reading.reason}"
    return f"{path}: {found}" + (f"; {reader.warning}" if reader.warning else "")


def as_json(path: Path, reading: Reading, reader: Reader) -> str:
    return json.dumps({"image": str(path)} | answer(reading, reader))


if __name__ == "__main__":
    sys.exit(main())
