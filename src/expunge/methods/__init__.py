"""Unlearning methods: one file per method; the folder is the registry."""

from typing import Any

from expunge.core import registry
from expunge.models import restore


def _guard_named(name: str) -> tuple[frozenset[str], Any]:
    plugin = registry.load("guards", name, "model.guard")
    return frozenset(plugin.card.capabilities), plugin.module.restore


restore.provide(_guard_named)
