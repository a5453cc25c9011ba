"""Chat models behind `agent.core.interfaces.ChatModel`, one file each.

`extractive` needs no key and no network: it answers with sentences of the given context.
"""
