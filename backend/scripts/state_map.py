"""Compares the file tree in `BACKEND_STATE.md` with the real one.

    python scripts/state_map.py [ROOT]

prints what the map lacks, what it names in vain and what it leaves without a description, and exits
1 if there is any. The map's form: a heading names a folder, bullets below it name what it holds, and
deeper bullets hang on the folder above them:

    #### `backend/app/agent`
    - `config.py`: What an agent is configured with.
    - **`graph/`**
        - `schema.py`: The document of an agent graph.

Every `*.py` file with code under `app` and `scripts`, and `main.py`, needs an entry; a file of
`tests` may be covered by a folder's entry. An `__init__.py` that holds no code needs none.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MAP = "BACKEND_STATE.md"
BACKEND = PurePosixPath("backend")

HEADING = re.compile(r"^#+ +`(?P<path>backend(?:/[^`]*)?)`")
OTHER_HEADING = re.compile(r"^#+ ")
BULLET = re.compile(r"^(?P<indent> *)- +(?:\*\*)?(?P<names>`[^`]+`(?:, *`[^`]+`)*)(?:\*\*)?(?P<rest>.*)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the map; `path` is relative to the backend folder."""

    path: PurePosixPath
    folder: bool
    description: str
    line: int


def entries(text: str) -> Iterator[Entry]:
    """What the map names, headings included, in the order of its lines."""
    holders: list[tuple[int, PurePosixPath]] = []  # indent and folder, outermost first
    for number, line in enumerate(text.splitlines(), start=1):
        if heading := HEADING.match(line):
            folder = PurePosixPath(heading["path"]).relative_to(BACKEND)
            holders = [(-1, folder)]
            yield Entry(folder, folder=True, description="", line=number)
        elif OTHER_HEADING.match(line):
            holders = []
        elif holders and (bullet := BULLET.match(line)):
            indent = len(bullet["indent"])
            while holders[-1][0] >= indent:
                holders.pop()
            description = bullet["rest"].strip().removeprefix(":").strip()
            for name in re.findall(r"`([^`]+)`", bullet["names"]):
                entry = Entry(holders[-1][1] / name, name.endswith("/"), description, number)
                yield entry
            if entry.folder:
                holders.append((indent, entry.path))


def needed(root: Path) -> Iterator[PurePosixPath]:
    """Modules that the map must cover."""
    yield PurePosixPath("main.py")
    for room in ("app", "scripts", "tests"):
        for path in sorted((root / room).rglob("*.py")):
            if path.name != "__init__.py" or holds_code(path):
                yield PurePosixPath(path.relative_to(root))


def holds_code(path: Path) -> bool:
    """Whether there is more than a docstring."""
    body = ast.parse(path.read_text("utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def problems(root: Path) -> list[str]:
    """One sentence for each place where the map and the tree under `root` differ."""
    document = root / MAP
    if not document.is_file():
        return [f"{MAP} is missing"]
    found = list(entries(document.read_text("utf-8")))
    files = {entry.path for entry in found if not entry.folder}
    test_folders = {entry.path for entry in found if entry.folder and entry.path.parts[:1] == ("tests",)}
    test_folders.discard(PurePosixPath("tests"))
    missing = [
        f"missing: {BACKEND / path} has no entry"
        for path in needed(root)
        if path not in files and test_folders.isdisjoint(path.parents)
    ]
    return missing + stale(root, found) + unclear(found)


def stale(root: Path, found: Sequence[Entry]) -> list[str]:
    return [
        f"stale: line {entry.line} names {BACKEND / entry.path}, which is no {kind}"
        for entry in found
        for kind, exists in [("folder", Path.is_dir) if entry.folder else ("file", Path.is_file)]
        if not exists(root / entry.path)
    ]


def unclear(found: Sequence[Entry]) -> list[str]:
    lines: dict[PurePosixPath, int] = {}
    answer = []
    for entry in found:
        if not entry.folder and not entry.description:
            answer.append(f"unclear: line {entry.line} does not describe {BACKEND / entry.path}")
        first = lines.setdefault(entry.path, entry.line)
        if first != entry.line and not entry.folder:
            answer.append(f"unclear: lines {first} and {entry.line} both describe {BACKEND / entry.path}")
    return answer


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 if the map of the backend folder (the first argument) is wrong anywhere."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    answer = problems(root)
    for problem in answer:
        print(problem)
    return int(bool(answer))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
