"""Searches and texts of real lengths that need no download: what scikit-learn and SciPy say of their functions.

    python benchmarks/documentation.py FOLDER

The first sentence of a function's documentation is what is searched for, what follows is what is to be found. Both packages
come with optkit. FOLDER gets `train.csv` and `dev.csv` for `--task embedding`.
"""

import argparse
import ast
import csv
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("sklearn", "scipy")
ROWS = {"dev": 300, "train": 1500}
_MOST_WORDS = 100
"""Words of a text: passages are about as long as those that people cut their documents into."""
_LEAST_WORDS = {"query": 4, "positive": 30}
_UNTIL = re.compile(r"^\s*(Examples|References|See Also)\s*\n\s*-{3,}", re.MULTILINE)
_MARKUP = re.compile(r"^\s*(-{3,}|\.\. .*)$|:[a-z:]+:|`", re.MULTILINE)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


def write(folder: Path) -> None:
    """Write both files into a folder, which is made if missing; the rows depend on the packages' versions alone."""
    found = {query: text for package in PACKAGES for query, text in _documented(package)}
    drawn = sorted(found.items(), key=lambda row: sha256(row[0].encode()).digest())
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in ROWS.items():
        rows, drawn = drawn[:count], drawn[count:]
        write_table(folder / f"{split}.csv", ("query", "positive"), rows)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def _documented(package: str) -> Iterator[tuple[str, str]]:
    """Yield the first sentence and the rest of what each public function and class says, without running anything."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        if "tests" not in path.parts:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    yield from _parted(ast.get_docstring(node) or "")


def _parted(documentation: str) -> Iterator[tuple[str, str]]:
    first, _, rest = _UNTIL.split(documentation, maxsplit=1)[0].partition("\n\n")
    query, text = (" ".join(_MARKUP.sub(" ", part).split()) for part in (first, rest))
    if len(query.split()) >= _LEAST_WORDS["query"] and len(text.split()) >= _LEAST_WORDS["positive"]:
        yield query, " ".join(text.split()[:_MOST_WORDS])


if __name__ == "__main__":
    main()
