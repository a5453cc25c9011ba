"""Fixtures of `tests.workers.world`.

Modules that use them say `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from tests.workers.world import blob_folder, resources, world

__all__ = ["blob_folder", "resources", "world"]
