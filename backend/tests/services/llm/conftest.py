from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.rag.providers.model.minilm import MiniLM


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniLM]:
    model = MiniLM(tmp_path_factory.mktemp("models"))
    yield model
    model.close()
