"""Every model, so that one import knows the whole schema."""

from app.db.postgres.models.agents import (
    Agent,
    AgentRun,
    AgentRunCheckpoint,
    AgentRunCheckpointWrite,
    AgentRunCommand,
    AgentRunEvent,
    AgentRunInterrupt,
    AgentRunStep,
    AgentVersion,
)
from app.db.postgres.models.files import File
from app.db.postgres.models.idempotency import IdempotencyKey
from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, User
from app.db.postgres.models.jobs import Job, WorkItem
from app.db.postgres.models.node_cache import CachedNode
from app.db.postgres.models.rag import (
    ChunkRow,
    Collection,
    Document,
    DocumentVersion,
    IndexVersion,
    RAGPipeline,
    RAGPipelineVersion,
)
from app.db.postgres.models.registry import ModelRegistry, ToolRegistry
from app.db.postgres.models.secrets import InstallationKey, OrganizationKey, Secret
from app.db.postgres.models.sessions import LoginAttempts, UserSession

__all__ = [
    "Agent",
    "AgentRun",
    "AgentRunCheckpoint",
    "AgentRunCheckpointWrite",
    "AgentRunCommand",
    "AgentRunEvent",
    "AgentRunInterrupt",
    "AgentRunStep",
    "AgentVersion",
    "ApiKey",
    "CachedNode",
    "ChunkRow",
    "Collection",
    "Document",
    "DocumentVersion",
    "File",
    "IdempotencyKey",
    "IndexVersion",
    "InstallationKey",
    "Job",
    "LoginAttempts",
    "Membership",
    "ModelRegistry",
    "Organization",
    "OrganizationKey",
    "Project",
    "RAGPipeline",
    "RAGPipelineVersion",
    "Secret",
    "ToolRegistry",
    "User",
    "UserSession",
    "WorkItem",
]
