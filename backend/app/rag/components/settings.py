"""Components whose work the platform does itself: the document says only which model and which store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.rag.pipeline.component import component


@component("embedder")
@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """The logical embedding model."""

    model: Literal["default-embedding"] = "default-embedding"


@component("indexer")
@dataclass(frozen=True, slots=True)
class IndexerSettings:
    """Where vectors are kept."""

    store: Literal["pgvector"] = "pgvector"
