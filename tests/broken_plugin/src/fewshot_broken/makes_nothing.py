"""Factories that return nothing."""

from fewshot import Component, hookimpl


def nothing(*arguments):
    pass


@hookimpl
def fewshot_backbones():
    return [Component("no-backbone", nothing)]


@hookimpl
def fewshot_metrics():
    return [Component("no-metric", nothing)]


@hookimpl
def fewshot_losses():
    return [Component("no-loss", nothing)]


@hookimpl
def fewshot_samplers():
    return [Component("no-sampler", nothing)]


@hookimpl
def fewshot_heads():
    return [Component("no-head", nothing)]


@hookimpl
def fewshot_adapters():
    return [Component("no-adapter", nothing)]


@hookimpl
def fewshot_datasets():
    return [Component("no-dataset", nothing)]


@hookimpl
def fewshot_transforms():
    return [Component("no-transform", nothing)]
