"""What several test modules run over."""

from typing import Any

import pytest

from fewshot.catalogue import registry
from fewshot.catalogue.loading import build_registry

REGISTRY, _ = build_registry()


def every(kind: str) -> Any:
    """The test runs over every registered component of a kind, built-in or from a plugin."""
    return pytest.mark.parametrize("entry", REGISTRY.all(kind), ids=lambda e: e.qualified)


def make(entry: Any, *args: Any, **may: Any) -> Any:
    """A component at its default options, given what it `may` take."""
    return registry.make(entry, entry.component.options(), *args, **may)
