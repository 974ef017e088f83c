"""One hook that works, and one that raises after it."""

from fewshot import Component, hookimpl


@hookimpl
def fewshot_backbones():
    return [Component("half-way-backbone", lambda options, shape: None)]


@hookimpl
def fewshot_transforms():
    yield Component("half-way-transform", lambda options: None)
    raise ValueError("raised half-way")
