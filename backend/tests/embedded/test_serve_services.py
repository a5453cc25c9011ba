"""`orrery serve` on services of one's own that are not as they should be: one sentence, no stack trace."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command, command
from tests.fixtures import MASTER_KEY
from tests.trust.serving import open_folder

__all__ = ["command"]
NOWHERE = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ORRERY_DATABASE_URL": f"postgresql://x:canary@{NOWHERE}/x"}, "does not answer"),
        ({"ORRERY_DATABASE_URL": "not a url"}, "ORRERY_DATABASE_URL is not the URL of a PostgreSQL"),
        (
            {"ORRERY_DATABASE_URL": f"postgresql://x@{NOWHERE}/x", "ORRERY_MASTER_KEY": "short"},
            "ORRERY_MASTER_KEY has 5 characters",
        ),
        (
            {"ORRERY_DATABASE_URL": f"postgresql://x@{NOWHERE}/x", "ORRERY_BLOB_URL": "/dev/null/blobs"},
            "ORRERY_BLOB_URL",
        ),
    ],
    ids=["database away", "no URL", "short key", "blobs in a file"],
)
def test_serve_says_which_setting_is_wrong(command: Command, settings: dict[str, str], sentence: str) -> None:
    keys = dict.fromkeys(("ORRERY_MASTER_KEY", "ORRERY_JWT_KEY"), MASTER_KEY)
    given = keys | {"ORRERY_REDIS_URL": f"redis://{NOWHERE}"} | settings
    with open_folder() as folder:
        done = command(["serve", "--port", "0", "--no-worker"], folder / "data", **given)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in line
    assert "canary" not in done.stderr
    assert "Traceback" not in done.stderr
