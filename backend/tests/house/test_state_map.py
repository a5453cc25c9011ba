"""`BACKEND_STATE.md` describes the tree as it is; and the comparison sees every way to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import state_map

BACKEND = Path(state_map.__file__).parents[1]

DOCUMENT = """# State

### `backend/app`
*Core application logic*

#### `backend/app/agent`
- `config.py`: What an agent is configured with.
- **`graph/`**
    - `schema.py`: The document.
    - **`nodes/`**: One file per type.
        - `model.py`, `tool.py`: **Nodes** that call out.
    - `compiler.py`: The plan.

#### `backend/app/db`
- **`postgres/models/`**
    - `files.py`: Uploaded files.

### `backend/scripts`
- (Various scripts, see `elsewhere.py`.)
- `lint.py`: House rules.

### `backend/tests`
- `conftest.py`: Fixtures.
- `agent/`: The engine.

### `backend/` (Root)
- `main.py`: Entry point.
- `alembic/`: Migrations.

### Notes
- `nothing.py`: not below a folder.
"""
FILES = (
    "app/agent/__init__.py",
    "app/agent/config.py",
    "app/agent/graph/schema.py",
    "app/agent/graph/compiler.py",
    "app/agent/graph/nodes/model.py",
    "app/agent/graph/nodes/tool.py",
    "app/db/postgres/models/files.py",
    "scripts/lint.py",
    "tests/conftest.py",
    "tests/agent/test_compiler.py",
    "alembic/env.py",
    "main.py",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small backend folder whose map is right."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / state_map.MAP).write_text(DOCUMENT)
    return tmp_path


def test_the_map_is_the_tree() -> None:
    assert state_map.problems(BACKEND) == []


class TestProblems:
    def test_a_right_map_has_none(self, tree: Path) -> None:
        assert state_map.problems(tree) == []

    def test_a_missing_map(self, tree: Path) -> None:
        (tree / state_map.MAP).unlink()
        assert state_map.problems(tree) == ["BACKEND_STATE.md is missing"]

    @pytest.mark.parametrize("path", ["app/agent/graph/references.py", "app/new.py", "scripts/debug_runs.py"])
    def test_a_file_without_an_entry(self, tree: Path, path: str) -> None:
        (tree / path).write_text("")
        assert state_map.problems(tree) == [f"missing: backend/{path} has no entry"]

    def test_a_test_without_a_folder_entry(self, tree: Path) -> None:
        (tree / "tests/test_lost.py").write_text("")
        assert state_map.problems(tree) == ["missing: backend/tests/test_lost.py has no entry"]

    def test_an_entry_without_a_file(self, tree: Path) -> None:
        (tree / "app/agent/graph/nodes/tool.py").unlink()
        assert state_map.problems(tree) == [
            "stale: line 11 names backend/app/agent/graph/nodes/tool.py, which is no file"
        ]

    def test_an_entry_without_a_folder(self, tree: Path) -> None:
        (tree / "alembic/env.py").unlink()
        (tree / "alembic").rmdir()
        assert state_map.problems(tree) == ["stale: line 28 names backend/alembic, which is no folder"]

    def test_an_entry_without_a_description(self, tree: Path) -> None:
        (tree / state_map.MAP).write_text(DOCUMENT.replace("`main.py`: Entry point.", "`main.py`:"))
        assert state_map.problems(tree) == ["unclear: line 27 does not describe backend/main.py"]

    def test_two_entries_of_one_file(self, tree: Path) -> None:
        (tree / state_map.MAP).write_text(DOCUMENT.replace("### Notes", "- `main.py`: Again.\n### Notes"))
        assert state_map.problems(tree) == ["unclear: lines 27 and 30 both describe backend/main.py"]

    def test_a_package_file_with_code_needs_an_entry(self, tree: Path) -> None:
        (tree / "app/agent/__init__.py").write_text('"""Agents."""\n\nfrom app.agent import config\n')
        assert state_map.problems(tree) == ["missing: backend/app/agent/__init__.py has no entry"]

    def test_a_package_file_with_a_docstring_needs_none(self, tree: Path) -> None:
        (tree / "app/agent/__init__.py").write_text('"""Agents."""\n')
        assert state_map.problems(tree) == []
