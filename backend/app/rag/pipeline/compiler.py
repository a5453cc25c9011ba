"""A pipeline document → its components, or a report of everything wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

import app.rag.components.catalogue  # noqa: F401  (registers every component)
from app.core.errors import FieldError, Invalid
from app.core.report import Issue, Report
from app.rag.components.chunker import SentenceChunker
from app.rag.components.parser import AutoParser
from app.rag.pipeline.component import components

FAMILIES = ("parser", "chunker", "embedder", "indexer")


class ComponentSpec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: str
    config: dict[str, Any] = Field(default_factory=dict)


class PipelineSpec(BaseModel):
    """The document: typed components, and connections from output to input sockets."""

    model_config = ConfigDict(extra="forbid")

    schema_version: str = Field(pattern=r"^1$")
    kind: str = Field(pattern=r"^ingestion$")
    components: list[ComponentSpec]
    connections: list[tuple[str, str]] = Field(default_factory=list)


class InvalidPipeline(Invalid):
    """The document has errors; they are in `errors`."""

    code = "invalid_pipeline"

    def __init__(self, report: Report) -> None:
        errors = [FieldError(issue.pointer, issue.code, issue.message) for issue in report.errors]
        super().__init__(f"the pipeline has {len(errors)} errors: {errors[0].message}", errors=errors)


@dataclass(frozen=True, slots=True)
class IngestionPlan:
    """The components that do something of their own, settings filled in."""

    parser: AutoParser
    chunker: SentenceChunker


def check(document: Any) -> Report:
    """Every finding, in document order; never raises."""
    try:
        spec = PipelineSpec.model_validate(document)
    except ValidationError as error:
        return Report(issues=list(_shape_issues(error, "")))
    issues: list[Issue] = []
    for index, component in enumerate(spec.components):
        issues += _component_issues(component, f"/components/{index}")
    families = [component.type.partition(".")[0] for component in spec.components]
    for family in FAMILIES:
        if families.count(family) != 1:
            message = f"an ingestion has one {family!r} component, not {families.count(family)}"
            issues.append(Issue(code="family_count", pointer="/components", message=message))
    ids = [component.id for component in spec.components]
    for index, (source, target) in enumerate(spec.connections):
        for end, socket in enumerate((source, target)):
            if socket.partition(".")[0] not in ids:
                message = f"{socket!r} names no component; there are {ids}"
                pointer = f"/connections/{index}/{end}"
                issues.append(Issue(code="unknown_component", pointer=pointer, message=message))
    return Report(issues=issues)


def compile_ingestion(document: Mapping[str, Any]) -> IngestionPlan:
    """Raises `InvalidPipeline` with every error at once."""
    report = check(document)
    if report.errors:
        raise InvalidPipeline(report)
    built = [_build(ComponentSpec.model_validate(component)) for component in document["components"]]
    return IngestionPlan(
        parser=next(component for component in built if isinstance(component, AutoParser)),
        chunker=next(component for component in built if isinstance(component, SentenceChunker)),
    )


def _build(spec: ComponentSpec) -> Any:
    return _adapter(spec.type).validate_python(spec.config)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(components()[name])


def _component_issues(spec: ComponentSpec, pointer: str) -> Iterator[Issue]:
    known = components()
    if spec.type not in known:
        near = difflib.get_close_matches(spec.type, known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"valid: {sorted(known)}"
        message = f"there is no component type {spec.type!r}"
        yield Issue(code="unknown_type", node_id=spec.id, pointer=f"{pointer}/type", message=message, fix=fix)
        return
    names = [field.name for field in fields(known[spec.type])]
    for key in spec.config:
        if key not in names:
            message = f"{spec.type!r} has no setting {key!r}; it has {names}"
            yield Issue(
                code="unknown_key", node_id=spec.id, pointer=f"{pointer}/config/{key}", message=message
            )
    try:
        _build(spec)
    except (ValidationError, ValueError) as error:
        if isinstance(error, ValidationError):
            yield from _shape_issues(error, f"{pointer}/config", node_id=spec.id)
        else:
            yield Issue(code="invalid", node_id=spec.id, pointer=f"{pointer}/config", message=str(error))


def _shape_issues(error: ValidationError, pointer: str, *, node_id: str | None = None) -> Iterator[Issue]:
    for found in error.errors():
        place = "".join(f"/{part}" for part in found["loc"])
        yield Issue(code=found["type"], node_id=node_id, pointer=pointer + place, message=found["msg"])
