"""The ingestion pipeline that a project starts with, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INGESTION: dict[str, Any] = {
    "schema_version": "1",
    "kind": "ingestion",
    "components": [
        {"id": "parse", "type": "parser.auto", "config": {}},
        {"id": "chunk", "type": "chunker.sentence", "config": {"max_tokens": 256, "overlap": 32}},
        {"id": "embed", "type": "embedder", "config": {"model": "default-embedding"}},
        {"id": "index", "type": "indexer", "config": {"store": "pgvector"}},
    ],
    "connections": [
        ["parse.documents", "chunk.documents"],
        ["chunk.chunks", "embed.chunks"],
        ["embed.vectors", "index.vectors"],
    ],
}


def with_chunking(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline `document` with other settings of its chunker."""
    components = [
        component | {"config": component.get("config", {}) | dict(changes)}
        if component["type"].startswith("chunker.")
        else component
        for component in document["components"]
    ]
    return {**document, "components": components}
