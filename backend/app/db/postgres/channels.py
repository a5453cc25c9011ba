"""Channels of LISTEN and NOTIFY: hints between processes; whoever hears nothing looks from time to time."""

from typing import Final

RUN_EVENTS: Final = "orrery_run_events"
"""Which runs have news: the writer's name, a space, ids as hex and comma-separated, or `*` for too many."""

RUN_COMMANDS: Final = "orrery_run_commands"
"""A command waits for the holder of the run whose id this is."""

RUN_QUEUE: Final = "orrery_run_queue"
"""A run waits to be claimed."""
