"""The ingestion pipeline that a project starts with, as data."""

from __future__ import annotations

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
