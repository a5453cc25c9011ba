"""Telemetry of libraries: off. Nothing is sent to anybody whom the operator has not named.

`switch_off` runs when `app` is imported, before any of the libraries reads its switch. It replaces what the
environment says: a variable that was set for another program must not make this one talk.
"""

from __future__ import annotations

import os

SWITCHES = {
    # LangSmith arrives with langchain-core. All spellings: of the first two the older wins where it is set,
    # and the oldest ones make every run fail.
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGCHAIN_HANDLER": "",
    # The official wheels of ONNX Runtime report to mobile.events.data.microsoft.com unless told otherwise.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub comes with tokenizers and is not used; the second is https://donottrack.sh.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def switch_off() -> None:
    """For this process and all that it starts."""
    os.environ.update(SWITCHES)
