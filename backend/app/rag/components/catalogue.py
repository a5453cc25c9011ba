"""Every component that comes with the platform; importing this registers them."""

from app.rag.components import chunker, parser, settings

__all__ = ["chunker", "parser", "settings"]
