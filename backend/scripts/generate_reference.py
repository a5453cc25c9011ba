"""The reference of node types, codes and events, made of the code.

    python scripts/generate_reference.py [--check]

writes the pages below `docs/reference`, and removes what does not belong there; with `--check` it writes
nothing and exits 1 where a page is not what it would write. Needs no database and no service.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BACKEND))

from scripts.reference.codes import code_pages, run_errors_page  # noqa: E402
from scripts.reference.markdown import Pages, page  # noqa: E402
from scripts.reference.nodes import events_page, node_pages  # noqa: E402

TARGET = BACKEND.parent / "docs" / "reference"
_INDEX = """- [Node types](nodes/index.md): what graphs are made of
- [What validation says](codes/index.md): a page for each code, with a graph that has it
- [Why nodes and runs fail](run-errors.md): every `error.code`
- [Events of runs](events.md): what a run tells while it goes on"""


@cache
def pages() -> Pages:
    """Every page by its path below `docs/reference`."""
    index = {"index.md": page("Reference", "Made of the code, so that it says what there is.", _INDEX)}
    return {**index, **node_pages(), **code_pages(), **run_errors_page(), **events_page()}


def outdated(folder: Path = TARGET) -> list[str]:
    """The pages in `folder` that are missing, not up to date, or not of the reference."""
    wanted = pages()
    stored = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.md"))}
    changed = [
        path for path, text in wanted.items() if path not in stored or stored[path].read_text() != text
    ]
    return [*changed, *(path for path in stored if path not in wanted)]


def write(folder: Path = TARGET) -> None:
    for path in outdated(folder):
        file = folder / path
        if text := pages().get(path):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        else:
            file.unlink()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where it is out of date")
    if not parser.parse_args(arguments).check:
        write()
        return 0
    found = outdated()
    for path in found:
        print(f"docs/reference/{path} is out of date")
    if found:
        print("run `.venv/bin/python scripts/generate_reference.py` in backend/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
