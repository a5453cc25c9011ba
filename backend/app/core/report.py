"""What a compiler says about a document: every finding at once, each with place and remedy."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Issue(BaseModel):
    """One finding. `pointer` is RFC 6901 into the checked document; `fix` says what to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    severity: Severity = Severity.ERROR
    node_id: str | None = None
    pointer: str = ""
    message: str
    fix: str = ""


class Report(BaseModel):
    """All findings of one check, in document order."""

    model_config = ConfigDict(extra="forbid")

    issues: list[Issue] = Field(default_factory=list)

    @property
    def errors(self) -> list[Issue]:
        return [issue for issue in self.issues if issue.severity is Severity.ERROR]

    @property
    def valid(self) -> bool:
        return not self.errors
