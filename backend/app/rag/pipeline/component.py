"""The registry of pipeline components: a type name and the frozen dataclass of its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import Any, TypeVar

C = TypeVar("C", bound=type[Any])

_registered: dict[str, type[Any]] = {}


def component(name: str) -> Callable[[C], C]:
    """Registers a frozen, slotted dataclass as component type `name` (`family.kind`).

    Raises `TypeError` for any other class and `ValueError` for a name that is taken, both at import.
    """

    def register(cls: C) -> C:
        if not (is_dataclass(cls) and _is_frozen(cls) and "__slots__" in cls.__dict__):
            raise TypeError(f"component {name!r}: {cls.__qualname__} must be a frozen, slotted dataclass")
        if name in _registered:
            taken = _registered[name]
            raise ValueError(f"component {name!r} is already {taken.__module__}.{taken.__qualname__}")
        _registered[name] = cls
        return cls

    return register


def components() -> Mapping[str, type[Any]]:
    """Every component type imported so far, by name."""
    return MappingProxyType(_registered)


def _is_frozen(cls: type[Any]) -> bool:
    return bool(cls.__dict__["__dataclass_params__"].frozen)
