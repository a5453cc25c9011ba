"""What node types know to be wrong with a configuration as a whole."""

from __future__ import annotations

from app.agent.graph.draft import Draft
from app.agent.graph.issues import Findings, IssueCode


def check_configs(draft: Draft, findings: Findings) -> None:
    for node in draft.nodes:
        raw = node.raw.get("config", {})
        for mistake in node.type.config.mistakes(raw) if node.type and isinstance(raw, dict) else ():
            path = (*node.path, "config", *mistake.path)
            findings.add(IssueCode.INVALID_VALUE, path, mistake.message, fix=mistake.fix, node_id=node.id)
