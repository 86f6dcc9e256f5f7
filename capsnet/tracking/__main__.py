"""Update the MLflow store after the repository was moved or the experiment deleted.

Every stage does this when it starts. Alone it is for a moved repository whose models are used
before a stage runs. Artifacts are then found beside the database again.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m capsnet.tracking` in the repository root")

import sys

from capsnet import program_parser
from capsnet.tracking.store import first_line, open_experiment, tracking_uri


def main() -> None:
    program_parser(__spec__.name, __doc__).parse_args()
    try:
        open_experiment()
    except Exception as error:  # a library's: of the file system, SQLite or the server
        sys.exit(f"tracking: {tracking_uri()}: {first_line(error)}")
    print(f"{tracking_uri()} is up to date")


if __name__ == "__main__":
    main()
