from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.rag.providers.model.minilm import MiniLM


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def embedder(model_folder: Path) -> Iterator[MiniLM]:
    model = MiniLM(model_folder)
    yield model
    model.close()
