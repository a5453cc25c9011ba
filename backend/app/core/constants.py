"""Names and limits that are the same on every installation."""

from __future__ import annotations

API_PREFIX = "/api/v1"
SLUG_PATTERN = r"^[a-z][a-z0-9-]{1,62}$"
MAX_PAGE_SIZE = 200
DEFAULT_PAGE_SIZE = 50
MAX_TOP_K = 200
DEFAULT_PROJECT = "default"
DEMO_NAME = "handbook"  # of the agent and the collection that the demo makes
DEFAULT_CHAT_MODEL = "default-chat"
MAX_DIGITS = 9  # of a number that is a revision or a version
INGEST_QUEUE = "ingest"
REVOCATION_BITES_S = 5.0
