"""What a `subagent` node gives, against what the published agent takes."""

from __future__ import annotations

from app.agent.core.interfaces import AgentOffer
from app.agent.core.value_types import of_schema
from app.agent.graph.draft import DraftNode
from app.agent.graph.issues import Findings, IssueCode


def check_offer(node: DraftNode, offer: AgentOffer | None, findings: Findings) -> None:
    config = node.raw.get("config")
    given = config.get("inputs", {}) if isinstance(config, dict) else None
    if offer is None or offer.inputs is None or not isinstance(given, dict):
        return
    taken = of_schema(offer.inputs)
    known = taken.fields or {}
    path = (*node.path, "config", "inputs")
    for name in known:
        if name not in given and name not in taken.optional and name in offer.inputs.get("required", ()):
            message = f"the agent requires the input {name!r}, which node {node.id!r} does not give"
            fix = f"add {name!r} to 'inputs'"
            findings.add(IssueCode.MISSING_KEY, path, message, fix=fix, node_id=node.id)
    for name in given if taken.fields is not None else ():
        if name not in known:
            fix = findings.instead(name, known)
            findings.add(
                IssueCode.UNKNOWN_INPUT, (*path, name), f"the agent has no input {name!r}",
                fix=fix, node_id=node.id,
            )  # fmt: skip
