"""Orrery: agents, RAG pipelines and voice as declarative documents behind one API."""

__version__ = "0.1.0"
