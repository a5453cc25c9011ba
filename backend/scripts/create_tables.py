"""Creates or upgrades the database tables: Alembic to the newest revision, as `orrery migrate` does."""

from __future__ import annotations

import asyncio
import sys

from app.core.config import get_settings
from app.core.errors import AppError
from app.db.migrate import migrate
from app.resources import demanded


def main() -> int:
    settings = get_settings()
    try:
        url = demanded(
            settings.database_migration_url or settings.database_url, "ORRERY_DATABASE_MIGRATION_URL"
        )
        asyncio.run(migrate(url))
    except AppError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
