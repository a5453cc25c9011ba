"""Agents: edited as drafts, checked, published as immutable versions, taken elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from app.services.agents.explaining import Explaining
from app.services.agents.transfer import Transfer


@dataclass(slots=True)
class AgentService(Transfer, Explaining):
    """Every use case of the agents of one project. Opens short transactions of its own: a run outlives its
    request, and so does the version that it is pinned to."""
