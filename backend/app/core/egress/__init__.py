"""The one way out for addresses that users or documents supply (guarantee G12).

`open_egress` gives a `Gate`, whose `of` gives the `Egress` of an organization: `fetch` for whole answers,
`stream` for bodies, lines and server-sent events. A host is looked up once per connection, every one of its
addresses is checked, and the connection goes to one of these; redirects pass the same check. Nothing of an
HTTP library is loaded by importing this.
"""

from app.core.egress.calls import Call, Egress, Limits, Reply, ReplyStream, ServerEvent
from app.core.egress.errors import (
    EgressBusy,
    EgressDenied,
    EgressFailed,
    EgressInvalid,
    EgressTimeout,
    EgressTooLarge,
)
from app.core.egress.opening import Gate, OrganizationEgress, open_egress, system_trust
from app.core.egress.resolving import Resolver
from app.core.egress.rules import Ports, Rule, Rules

__all__ = [
    "Call",
    "Egress",
    "EgressBusy",
    "EgressDenied",
    "EgressFailed",
    "EgressInvalid",
    "EgressTimeout",
    "EgressTooLarge",
    "Gate",
    "Limits",
    "OrganizationEgress",
    "Ports",
    "Reply",
    "ReplyStream",
    "Resolver",
    "Rule",
    "Rules",
    "ServerEvent",
    "open_egress",
    "system_trust",
]
