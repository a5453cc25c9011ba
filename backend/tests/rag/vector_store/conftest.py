"""Fixtures of `tests.workers.world`."""

from tests.workers.world import blob_folder, resources, world

__all__ = ["blob_folder", "resources", "world"]
