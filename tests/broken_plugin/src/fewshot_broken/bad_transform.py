"""Transforms that raise, and that return nothing."""

from fewshot import Component, hookimpl


def raising(images, rng):
    raise ValueError("no such colour")


@hookimpl
def fewshot_transforms():
    return [
        Component("raising-transform", lambda options: raising),
        Component("void-transform", lambda options: lambda images, rng: None),
    ]
