"""`code`: Python that can reach nothing but the values it is given."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from app.agent.core.base import ERROR, Effect, Mistake, NodeConfig, NodeError, Outputs, node
from app.agent.core.scope import Scope
from app.agent.core.value_types import ValueType, of_schema
from app.agent.graph.code_rules import MAX_CODE, problems_of
from app.agent.graph.json_schema import errors_of, sound_value_schema
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.limits import exceeds, too_much
from app.agent.graph.policies import Name
from app.agent.graph.references import MAX_RENDERED, RenderedTooLarge

_LOGS = "logs"
_TAKEN = (_LOGS, ERROR)

Kind = Literal["string", "number", "integer", "boolean", "array", "object"]
Output = Kind | Annotated[dict[str, Any], AfterValidator(sound_value_schema)]


class CodeConfig(NodeConfig):
    """Runs statements of Python in a sandbox.

    They reach no files, no network and no processes, and have little time and memory.

    `inputs` are its variables at the beginning. `outputs` names variables that it assigns, each with a JSON
    type or a JSON Schema, which their values must fit at the end. What it prints is the output `logs`.

    It counts as `read`: its outcome, which may depend on the clock or on chance, is not worked out anew.
    """

    type: ClassVar[str] = "code"
    example: ClassVar[dict[str, Any]] = {
        "inputs": {"text": "{{ inputs.question }}"},
        "code": "words = text.lower().split()\nlongest = max(words, key=len, default='')",
        "outputs": {"words": {"type": "array", "items": {"type": "string"}}, "longest": "string"},
    }

    code: Annotated[str, Field(strict=True, min_length=1, max_length=MAX_CODE)]
    inputs: Annotated[dict[Name, JsonTemplate], Field(max_length=100)] = Field(default_factory=dict)
    outputs: Annotated[dict[Name, Output], Field(max_length=100)] = Field(default_factory=dict)

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        inputs, outputs = _names(raw.get("inputs")), _names(raw.get("outputs"))
        for name in _TAKEN:
            if name in outputs:
                message = f"every code node has {name!r}, with another meaning"
                yield Mistake(("outputs", name), message, "choose another name")
        for field, names in (("inputs", inputs), ("outputs", outputs)):
            for name in filter(keyword.iskeyword, names):
                message = f"{name!r} is a word of Python, and cannot be a variable"
                yield Mistake((field, name), message, "choose another name")
        code = raw.get("code")
        if isinstance(code, str) and 0 < len(code) <= MAX_CODE:
            passed_over = {*inputs, *_TAKEN, *keyword.kwlist}
            made = [name for name in outputs if name not in passed_over]
            for problem in problems_of(code, made):
                yield Mistake(("code",), str(problem), problem.fix)

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        return {**types, **{name: of_schema(_schema(output)) for name, output in self.outputs.items()}}


def _names(part: object) -> list[str]:
    return list(part) if isinstance(part, dict) else []


def _schema(output: Output) -> dict[str, Any]:
    return {"type": output} if isinstance(output, str) else output


@node(CodeConfig, effect=Effect.READ, outputs={_LOGS: str})
async def code(config: CodeConfig, scope: Scope) -> Outputs:
    """Raises what the runner raises (`code_failed`, `code_limit`), `RenderedTooLarge`, and `NodeError`
    (`invalid_output`) where a variable has not the type that it should have.
    """
    inputs = {name: template.value(scope) for name, template in config.inputs.items()}
    if exceeds(inputs, max_text=MAX_RENDERED):
        raise RenderedTooLarge(f"the inputs come to more than {too_much(MAX_RENDERED)}")
    outputs, logs = await scope.code.run(config.code, inputs, tuple(config.outputs))
    if exceeds(outputs, max_text=MAX_RENDERED):
        raise RenderedTooLarge(f"the outputs come to more than {too_much(MAX_RENDERED)}")
    wrong = [
        f"{name}{error.pointer}: {error.message}"
        for name, output in config.outputs.items()
        for error in errors_of(_schema(output), outputs.get(name))
    ]
    if wrong:
        raise NodeError(f"the outputs are not of their types: {'; '.join(wrong[:3])}", code="invalid_output")
    return {**outputs, _LOGS: logs}
