"""`set_state`: values into the state, each through the reducer of its field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from app.agent.core.base import NodeConfig, Outputs, node
from app.agent.core.scope import Scope
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.limits import exceeds, too_much
from app.agent.graph.policies import Name
from app.agent.graph.references import MAX_RENDERED, RenderedTooLarge


class SetStateConfig(NodeConfig):
    """Writes values to fields of the state.

    The reducer of the field says how: `replace` puts the value there, `append` adds it as one item of the
    list, `merge` adds its keys to the object, `add` adds it to the number. All values are read before the
    first is written.
    """

    type: ClassVar[str] = "set_state"
    example: ClassVar[dict[str, Any]] = {"values": {"notes": "{{ inputs.question }}"}}

    values: Annotated[dict[Name, JsonTemplate], Field(min_length=1, max_length=100)]

    def written(self) -> Mapping[str, tuple[str | int, ...]]:
        return {name: ("values", name) for name in self.values}


@node(SetStateConfig, pure=True, outputs={})
async def set_state(config: SetStateConfig, scope: Scope) -> Outputs:
    """Raises `NodeError` (`type_mismatch`) for a value that its field cannot take, `RenderedTooLarge`."""
    values = {name: template.value(scope) for name, template in config.values.items()}
    if exceeds(values, max_text=MAX_RENDERED):
        raise RenderedTooLarge(f"the values come to more than {too_much(MAX_RENDERED)}")
    for name, value in values.items():
        scope.write_state(name, value)
    return {}
