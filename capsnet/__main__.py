"""List the programs: `python -m capsnet`."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("capsnet/predict.py", "capsnet/explore/__main__.py", "capsnet/benchmark.py")
PROGRAMS += ("capsnet/tracking/__main__.py",)


def main() -> None:
    """Print the name and the first sentence of each program; import none."""
    stages = (f"stages/{path.name}" for path in sorted((ROOT / "stages").glob("*.py")))
    for title, files in {"Programs": PROGRAMS, "Stages of the pipeline": stages}.items():
        print(f"{title}:")
        for file in files:
            text = (ROOT / file).read_text()
            if '__name__ == "__main__"' in text:
                name = file.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
                sentence = ast.get_docstring(ast.parse(text)).splitlines()[0]
                print(f"  python -m {name:18}  {sentence}")
    print("The option --help explains each of them.")


if __name__ == "__main__":
    main()
