"""The description of the API as a file, so that a change of the API is seen in review.

    python scripts/export_openapi.py [--check]

writes `backend/openapi.json`; with `--check` it writes nothing and exits 1 where the file is not what it
would write. Needs no database and no service.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from itertools import islice
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BACKEND))

from app.core.config import Settings  # noqa: E402
from main import create_app  # noqa: E402

TARGET = BACKEND / "openapi.json"
_SHOWN_LINES = 40


def document() -> str:
    """The description with default settings; equal for equal code, whatever the environment says."""
    described = create_app(Settings.model_construct()).openapi()
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def difference(path: Path = TARGET) -> list[str]:
    """The first lines of what `path` lacks and what it has too much; empty where it is up to date."""
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        stored.splitlines(), document().splitlines(), path.name, "the code", lineterm="", n=1
    )
    return list(islice(lines, _SHOWN_LINES))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write backend/openapi.json")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where it is out of date")
    if not parser.parse_args(arguments).check:
        TARGET.write_text(document(), encoding="utf-8")
        return 0
    found = difference()
    if found:
        print("\n".join(found))
        print("\nopenapi.json is out of date: run `.venv/bin/python scripts/export_openapi.py` in backend/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
