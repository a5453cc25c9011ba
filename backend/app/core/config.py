"""Every setting, with its default: environment `ORRERY_*` first, then `.env`, then the default here."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, FilePath, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.base_urls import check_base_url
from app.core.egress.rules import DEFAULT_PORTS, Ports, Rule, read_ports, read_rules
from app.core.entries import entries
from app.core.failpoints import read_traps
from app.core.sandbox.jail import Sandbox

RuleList = Annotated[tuple[Rule, ...], NoDecode, BeforeValidator(read_rules)]
TextList = Annotated[list[str], NoDecode, BeforeValidator(entries)]
PortList = Annotated[tuple[Ports, ...], NoDecode, BeforeValidator(read_ports)]


def _either(name: str) -> AliasChoices:
    """A setting that is also read under its usual name; the one with our prefix wins, also if it is empty."""
    return AliasChoices(f"ORRERY_{name}", name)


class Settings(BaseSettings):
    """Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="ORRERY_", env_file=".env", extra="ignore", populate_by_name=True
    )

    # where things are
    data_dir: Path = Path(".orrery")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    blob_url: str | None = None

    # services; empty means embedded
    database_url: SecretStr | None = None
    database_migration_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    database_listen_url: SecretStr | None = Field(
        default=None, description="past a transaction pooler, which passes no notices on; else we poll"
    )
    database_pool_size: int = Field(default=10, ge=1, le=200)
    database_timeout_s: float = Field(default=30, gt=0)
    database_prepared_statements: bool = True
    embedded_start_timeout_s: float = Field(default=60, gt=0)
    embedded_restarts: int = Field(default=10, ge=1, description="in a row, before serve gives up")

    # generated only with embedded services
    master_key: SecretStr | None = None
    jwt_key: SecretStr | None = None
    master_key_previous: SecretStr | None = Field(default=None, description="while it is being changed")

    # secrets
    max_secret_bytes: int = Field(default=64 * 2**10, ge=1)
    secrets_rotation_batch: int = Field(default=500, ge=1, description="rows of one transaction")

    # first start
    bootstrap_email: str | None = None
    bootstrap_password: SecretStr | None = None
    bootstrap_api_key: SecretStr | None = None

    # logs
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # people and credentials
    access_token_s: int = Field(default=900, ge=10, le=3600)
    session_idle_s: int = Field(default=14 * 86400, ge=60, description="without a refresh")
    session_max_s: int = Field(default=90 * 86400, ge=60)
    sessions_per_user: int = Field(default=50, ge=1, description="more end the oldest")
    refresh_tolerance_s: float = Field(default=10, ge=0, le=60, description="for a refresh that is repeated")
    password_min_length: int = Field(default=8, ge=8, le=128)
    password_concurrency: int = Field(default=2, ge=1, le=64, description="Argon2 takes 64 MiB each")
    password_queue: int = Field(default=32, ge=0, description="logins that wait for it")
    login_window_s: float = Field(default=900, gt=0)
    login_attempts: int = Field(default=5, ge=1, description="per window, email and address")
    login_attempts_per_address: int = Field(default=100, ge=1, description="per window")
    auth_cache_s: float = Field(default=2, ge=0, le=5)
    auth_cache_size: int = Field(default=10_000, ge=1)
    stream_recheck_s: float = Field(default=2, gt=0, le=3)

    # API
    public_url: str | None = Field(default=None, description="as browsers see it; https makes cookies secure")
    trusted_proxies: TextList = Field(default=[], description="whose X-Forwarded-For is believed")
    cors_origins: TextList = Field(default=[], description="such as https://app.example, or *")
    docs_enabled: bool = True
    max_request_bytes: int = Field(default=4 * 2**20, ge=1024)
    max_yaml_bytes: int = Field(default=512 * 2**10, ge=1024, description="of a body; JSON may be larger")
    max_url_bytes: int = Field(default=16 * 2**10, ge=256)
    max_header_bytes: int = Field(default=64 * 2**10, ge=1024)
    body_silence_s: float = Field(default=30, gt=0, description="between two parts of a request's body")
    body_min_bytes_per_s: int = Field(default=4096, ge=1, description="on average, of a request's body")
    max_upload_bytes: int = Field(default=100 * 2**20, ge=1024, description="one document")
    max_upload_request_bytes: int = Field(default=2 * 2**30, ge=1024)
    max_upload_files: int = Field(default=200, ge=1)
    sse_heartbeat_s: float = Field(default=15, gt=0)
    rate_limit_window_s: float = Field(default=10, gt=0)
    rate_limit_credential: int = Field(default=10_000, ge=0, description="requests per window; 0: off")
    rate_limit_project: int = Field(default=20_000, ge=0)
    rate_limit_organization: int = Field(default=40_000, ge=0)
    rate_limit_address: int = Field(default=300, ge=0, description="logins, refreshes and logouts")
    idempotency_retention_s: float = Field(default=24 * 3600, gt=0)
    idempotency_wait_s: float = Field(default=10, ge=0, description="for the first request with a key")
    upload_grace_s: float = Field(default=3600, ge=1, description="after which a broken upload is erased")
    job_poll_interval_s: float = Field(default=1, gt=0, description="how often a watched job is looked at")

    # ingestion
    ingest_concurrency: int = Field(default=4, ge=1, le=64)
    ingest_max_attempts: int = Field(default=3, ge=1)
    ingest_patience_s: float = Field(default=6 * 3600, ge=0, description="while a service is away")
    ingest_large_bytes: int = Field(default=2**16, ge=1, description="beyond it, a document is a large one")
    ingest_isolation_s: float = Field(default=60, ge=0, description="alone, once its worker has died")
    ingest_batch_chunks: int = Field(default=64, ge=1, le=1000, description="embedded and stored at once")
    parse_processes: int = Field(default=2, ge=1, le=64)
    parse_timeout_s: float = Field(default=120, gt=0)
    parse_memory_bytes: int = Field(default=2 * 2**30, ge=256 * 2**20)
    parse_max_pages: int = Field(default=5000, ge=1)
    parse_max_text_bytes: int = Field(default=50 * 2**20, ge=1024)
    parse_max_archive_ratio: int = Field(default=200, ge=1)

    # outgoing calls to addresses that users and documents supply
    egress_allow: RuleList = Field(
        default=(), description="internal hosts to open: name[:port], address, CIDR"
    )
    egress_deny: RuleList = Field(default=(), description="hosts to close, in the same forms")
    egress_ports: PortList = Field(default=DEFAULT_PORTS, description="of public hosts")
    egress_ca_file: FilePath | None = Field(default=None, description="PEM, trusted besides the system's")
    egress_max_connections: int = Field(default=200, ge=1)
    egress_max_connections_per_organization: int = Field(default=100, ge=1, description="more calls wait")
    egress_keepalive_s: float = Field(default=15, ge=0)
    egress_resolver_threads: int = Field(
        default=16, ge=1, le=256, description="an organization uses half of them at most"
    )
    egress_connect_timeout_s: float = Field(default=10, gt=0)
    egress_first_byte_timeout_s: float = Field(default=60, gt=0)
    egress_idle_timeout_s: float = Field(default=30, gt=0)
    egress_total_timeout_s: float = Field(default=120, gt=0)
    egress_max_bytes: int = Field(default=32 * 2**20, ge=1024, description="of an answer, decompressed")
    egress_max_event_bytes: int = Field(default=2**20, ge=1024, description="of one server-sent event")
    egress_max_redirects: int = Field(default=5, ge=0, le=50)

    # nodes of agents
    http_node_max_bytes: int = Field(default=4 * 2**20, ge=1, description="of an answer to an http node")
    node_cache_max_entry: int = Field(default=256 * 2**10, ge=1, description="characters of one result")
    node_cache_max_project: int = Field(
        default=64 * 2**20, ge=1, description="characters of a project's results; then the oldest go"
    )
    tool_timeout_s: float = Field(default=60, gt=0, description="of one call of a tool")
    tool_max_operations: int = Field(default=200, ge=1, description="of one MCP server or OpenAPI document")
    tool_max_text: int = Field(default=20_000, ge=100, description="characters that a model is shown")
    tool_cache_s: float = Field(default=2, ge=0, le=60, description="what a name stands for")
    tool_cache_size: int = Field(default=10_000, ge=1)
    tool_listing_s: float = Field(
        default=10, ge=0, le=3600, description="what an MCP server says of its tools; 0: asked at each call"
    )
    expression_timeout_s: float = Field(default=0.25, gt=0)
    expression_grace_s: float = Field(default=0.25, gt=0, description="then its worker is killed")
    expression_memory_bytes: int = Field(default=32 * 2**20, ge=2**20)
    expression_recursion: int = Field(default=100, ge=1, le=1000)
    expression_processes: int = Field(default=2, ge=1, le=64, description="an organization uses all but one")
    expression_wait_s: float = Field(default=5, gt=0, description="for one of them to be free")

    sandbox: Sandbox = Field(
        default=Sandbox.AUTO, description="of code and expressions: bubblewrap, limits, or what works"
    )
    code_timeout_s: float = Field(default=5, gt=0)
    code_grace_s: float = Field(default=1, gt=0, description="then its worker is killed")
    code_memory_bytes: int = Field(default=64 * 2**20, ge=2**20)
    code_recursion: int = Field(default=200, ge=1, le=1000)
    code_output_bytes: int = Field(default=2**20, ge=1, description="of a node's outputs as JSON")
    code_log_bytes: int = Field(default=64 * 2**10, ge=2, description="that a node may print")
    code_processes: int = Field(default=2, ge=1, le=64, description="an organization uses all but one")
    code_wait_s: float = Field(default=30, gt=0, description="for one of them to be free")

    # embeddings
    embedding_batch_size: int = Field(default=32, ge=1, le=512)
    embedding_threads: int = Field(default=0, ge=0, description="0: one per core")
    embedding_int8: bool = False

    # models; the names without ORRERY_ are those that clients of the providers read, too
    openai_api_key: SecretStr | None = Field(default=None, validation_alias=_either("OPENAI_API_KEY"))
    openai_base_url: str | None = Field(default=None, validation_alias=_either("OPENAI_BASE_URL"))
    default_chat_model: str | None = Field(default=None, description="openai/gpt-5-mini, local/extractive")
    model_cache_s: float = Field(default=2, ge=0, le=60, description="what a name stands for")
    model_cache_size: int = Field(default=10_000, ge=1)
    model_first_byte_timeout_s: float = Field(default=300, gt=0, description="models may think first")
    model_idle_timeout_s: float = Field(default=120, gt=0, description="between two parts of an answer")
    model_total_timeout_s: float = Field(default=600, gt=0)
    model_max_connections: int = Field(
        default=400, ge=1, description="to the model of the environment; an organization has half of them"
    )
    model_test_timeout_s: float = Field(default=60, gt=0)

    # work and runs
    lease_s: float = Field(default=30, gt=1)
    sweep_interval_s: float = Field(default=5, gt=0)
    run_concurrency: int = Field(default=200, ge=1)
    run_claims: bool = Field(
        default=True, description="go on with runs that nobody executes, in this process"
    )
    run_claim_concurrency: int = Field(default=100, ge=1, description="of them; the rest is for callers")
    run_recoveries: int = Field(
        default=5, ge=0, description="processes that may die over one run without a step done between"
    )
    run_map_items: int = Field(default=10_000, ge=1, description="items of one `map`")
    run_loop_rounds: int = Field(default=1_000, ge=1, description="rounds of one `loop`")
    run_agent_depth: int = Field(default=8, ge=1, description="sub-agents inside of each other")
    run_timeline_events: int = Field(
        default=20_000, ge=1, description="of a run whose timeline shows what nodes read and gave"
    )
    run_timeline_timeout_s: float = Field(
        default=10, gt=0, description="in which what nodes read and gave is worked out"
    )
    run_offered_tools: int = Field(
        default=128, ge=1, description="tools that one `agent` node offers its model"
    )
    run_tool_calls: int = Field(default=200, ge=1, description="calls of tools by one `agent` node")
    run_warm_up: bool = Field(default=True, description="load the engine at the start, not in the first run")
    run_log_retention_days: int = Field(
        default=0, ge=0, le=36_500, description="that events, steps and checkpoints are kept; 0: for ever"
    )
    run_timeout_s: float = Field(default=600, gt=0)
    run_wait_timeout_s: float = Field(default=60, gt=0)
    run_text_search_limit: int = Field(default=10_000, ge=1, description="newest runs that are looked into")
    shutdown_grace_s: float = Field(default=20, ge=0)
    shutdown_notice_s: float = Field(default=0.5, ge=0, description="not ready, before the port closes")

    # tests
    failpoints: str = Field(default="", description="see `core/failpoints.py`; empty everywhere but in tests")

    @field_validator("public_url")
    @classmethod
    def _is_origin(cls, url: str | None) -> str | None:
        if not url:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url!r} is not a URL such as 'https://orrery.example'")
        return url.rstrip("/")

    @field_validator("openai_api_key", "openai_base_url", "default_chat_model", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return (value.strip() or None) if isinstance(value, str) else value

    @field_validator("openai_base_url")
    @classmethod
    def _is_base_url(cls, url: str | None) -> str | None:
        return url and check_base_url(url)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: list[str]) -> list[str]:
        for proxy in proxies:
            ip_network(proxy)  # its ValueError quotes what is none
        return proxies

    @field_validator("failpoints")
    @classmethod
    def _known_failpoints(cls, setting: str) -> str:
        read_traps(setting)
        return setting

    @property
    def run_dir(self) -> Path:
        """Process files of this machine: pids, ports, `services.json`."""
        return self.data_dir / "run"

    @property
    def embedded(self) -> bool:
        """Whether any service is started by us."""
        return self.database_url is None or self.redis_url is None


@lru_cache
def get_settings() -> Settings:
    return Settings()
