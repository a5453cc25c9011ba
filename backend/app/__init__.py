"""Orrery: agents, RAG pipelines and voice as declarative documents behind one API."""

from app.core.telemetry import switch_off

__version__ = "0.1.0"

switch_off()
