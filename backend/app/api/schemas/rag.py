"""Collections, documents, jobs and search on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.api.schemas.common import Body, Description, ItemError, Metadata, Name, Read, Slug, example
from app.core.constants import MAX_TOP_K

Title = Annotated[str, Field(min_length=1, max_length=500)]


class CollectionCreate(Body):
    model_config = example(name="Handbook", slug="handbook", description="How we work")

    name: Name
    slug: Slug | None = None
    description: Description = ""


class ChunkingPatch(Body):
    """Sizes in tokens of the embedding model."""

    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 256
    overlap: Annotated[int, Field(ge=0, le=8192)] = 32


class SettingsPatch(Body):
    chunking: ChunkingPatch = Field(default_factory=ChunkingPatch)


class CollectionUpdate(Body):
    """JSON Merge Patch (RFC 7396). New settings hold for what is ingested from then on."""

    model_config = example(name="Handbook", settings={"chunking": {"max_tokens": 200}})

    name: Name = ""
    description: Description | None = None
    settings: SettingsPatch = Field(default_factory=SettingsPatch)


class ChunkingRead(Read):
    max_tokens: int
    overlap: int


class CollectionSettings(Read):
    """How documents are ingested."""

    chunking: ChunkingRead


class IndexRead(Read):
    """The index that searches use."""

    id: UUID
    store: str
    embedding_model: str
    dimensions: int
    chunk_count: int


class CollectionSummary(Read):
    """`revision` counts changes of name, description and settings; it begins the ETag."""

    id: UUID
    slug: str
    name: str
    description: str
    revision: int
    created_at: datetime
    updated_at: datetime


class CollectionRead(CollectionSummary):
    """`documents` counts its documents by status."""

    documents: dict[str, int]
    index: IndexRead
    settings: CollectionSettings


class TextItem(Body):
    external_id: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    title: Title
    text: Annotated[str, Field(min_length=1)]
    metadata: Metadata


class TextItems(Body):
    model_config = example(
        items=[
            {
                "external_id": "holidays-2026",
                "title": "Holidays",
                "text": "Everybody has thirty days of holiday.",
                "metadata": {"year": 2026},
            }
        ]
    )

    items: Annotated[list[TextItem], Field(min_length=1, max_length=1000)]


class UploadItem(Body):
    """What to know of one uploaded file."""

    external_id: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    title: Title | None = None
    metadata: Metadata


class TakenRead(Read):
    document_id: UUID | None
    name: str
    title: str
    external_id: str
    status: Literal["accepted", "unchanged", "rejected"]
    error: ItemError | None


class AcceptedRead(Read):
    """Documents were taken in; `job_id` is the job that ingests the accepted ones."""

    job_id: UUID
    items: list[TakenRead]


class JobStarted(Read):
    job_id: UUID


class DocumentUpdate(Body):
    """JSON Merge Patch (RFC 7396): `metadata` is merged, null removes members or all of it."""

    model_config = example(title="Holidays 2026", metadata={"year": 2026})

    title: Title = ""
    metadata: dict[str, Any] | None = None


class DocumentSummary(Read):
    """`revision` counts changes of title and metadata; it begins the ETag."""

    id: UUID
    collection_id: UUID
    external_id: str
    name: str
    title: str
    status: str
    error: ItemError | None
    media_type: str | None
    size_bytes: int
    page_count: int | None
    language: str | None
    chunk_count: int
    revision: int
    created_at: datetime
    updated_at: datetime


class DocumentRead(DocumentSummary):
    metadata: Annotated[dict[str, Any], Field(validation_alias="doc_metadata")]


class ChunkRead(Read):
    """`text` is `document.text[start:end]`, in Unicode code points."""

    id: UUID
    ordinal: int
    text: str
    start: Annotated[int, Field(validation_alias="start_offset")]
    end: Annotated[int, Field(validation_alias="end_offset")]
    page: int | None
    heading_path: list[str]
    token_count: int


class DocumentTextRead(Read):
    document: DocumentRead
    text: str | None
    chunks: list[ChunkRead]


class Progress(Read):
    """`done` counts items that ended, however; `failed` and `cancelled` are among them."""

    done: int
    failed: int
    cancelled: int
    skipped: int
    total: int


class JobRead(Read):
    """`eta_s`: the seconds that the open items take at the rate of the last minutes, once it is known."""

    id: UUID
    kind: str
    status: str
    stage: str | None
    progress: Progress
    eta_s: float | None
    error: ItemError | None
    created_at: datetime


class JobItemRead(Read):
    id: UUID
    kind: str
    subject_id: UUID
    status: Annotated[str, Field(validation_alias="state")]
    stage: str | None
    attempts: int
    error: ItemError | None
    created_at: datetime
    finished_at: datetime | None


def _refused(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported", "filters are not supported: send null or leave them out")


class SearchRequest(Body):
    """`group_by: document` answers each document's best chunk."""

    model_config = example(collections=["handbook"], query="How many days of holiday?", top_k=5)

    collections: Annotated[list[str], Field(min_length=1, max_length=20, examples=[["handbook"]])]
    query: Annotated[str, Field(min_length=1, max_length=10_000)]
    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] = 10
    filters: Annotated[None, BeforeValidator(_refused)] = None
    group_by: Literal["chunk", "document"] = "chunk"


class SearchItem(Read):
    score: float
    chunk_id: UUID
    document_id: UUID
    external_id: str
    title: str
    text: str
    page: int | None
    start: int
    end: int
    metadata: dict[str, Any]


class SearchRead(Read):
    items: list[SearchItem]
