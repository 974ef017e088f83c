"""The hooks a plugin may implement, one per kind: each returns an iterable of records.

A plugin is a module (or any object) named by an entry point in the group `fewshot`:

    [project.entry-points.fewshot]
    mine = "fewshot_mine"

    # fewshot_mine.py
    from fewshot import Component, Metric, hookimpl

    @hookimpl
    def fewshot_metrics():
        return [Component("chebyshev", chebyshev, summary="max |x - y|")]

A subcommand is no hook but an entry point of its own, a click command that is imported only when it
is called or `fewshot --help` lists it:

    [project.entry-points."fewshot.commands"]
    confused = "fewshot_mine:confused"

One module may implement several hooks, and a preset may name another plugin's part as
`provider/name`, that plugin being among the dependencies of its distribution.

What cannot be extended: a kind of part itself and a layout of draws; the order of a run's steps
(train, evaluate, report); the pages of reports; the formats of run folders and classifier files;
sections of the configuration; built-in commands and built-in names, which always mean the built-in.
No part but a schedule is told the step's number, no draw holds two views of one image, and a class
split is of classes: images of one class are parted by groups and roles alone.
"""

from collections.abc import Iterable

import pluggy

from ..core.components import Component, Preset, Study

hookspec = pluggy.HookspecMarker("fewshot")
hookimpl = pluggy.HookimplMarker("fewshot")


@hookspec
def fewshot_backbones() -> Iterable[Component]:
    """Networks: `factory(options, input_shape)` -> `Backbone`.

    return [Component("mlp", lambda options, shape: MLP(options.width, shape), MLPOptions)]
    """
    raise NotImplementedError


@hookspec
def fewshot_metrics() -> Iterable[Component]:
    """Distances: `factory(options)` -> `Metric`.

    return [Component("chebyshev", lambda _: Metric(fn=..., laws=frozenset(), upper=...))]
    """
    raise NotImplementedError


@hookspec
def fewshot_losses() -> Iterable[Component]:
    """Losses: `factory(options)` -> `Loss`.

    return [Component("huber", lambda options: Loss(fn=..., layout="pairs"), HuberOptions)]
    """
    raise NotImplementedError


@hookspec
def fewshot_samplers() -> Iterable[Component]:
    """Samplers: `factory(options, labels, groups)` -> `Sampler`.

    return [Component("hard-pairs", hard_pairs, HardPairsOptions)]
    """
    raise NotImplementedError


@hookspec
def fewshot_miners() -> Iterable[Component]:
    """Which pairs or triplets of a batch a loss learns from: `factory(options)` -> `Miner`.

    return [Component("near", lambda _: Miner(lambda distances, labels, others: distances < 1))]
    """
    raise NotImplementedError


@hookspec
def fewshot_heads() -> Iterable[Component]:
    """Few-shot classifiers: `factory(options)` -> `Head`.

    return [Component("soft-vote", lambda _: Head(fit=..., scores=..., differentiable=True))]
    """
    raise NotImplementedError


@hookspec
def fewshot_adapters() -> Iterable[Component]:
    """K-shot training on the support: `factory(options)` -> `Adapter`.

    A factory with parameters `learner`, `loss` or `head` is given those of the run.

    return [Component("centre", lambda _: centre)]  # centre(embedder, images, labels, metric, seed)
    """
    raise NotImplementedError


@hookspec
def fewshot_learners() -> Iterable[Component]:
    """How a step learns: `factory(options)` -> `Learner`.

    A factory with a parameter `backbone` is given the network.

    return [Component("maml", maml, MamlOptions)]
    """
    raise NotImplementedError


@hookspec
def fewshot_optimizers() -> Iterable[Component]:
    """What changes weights by gradients: `factory(options, learning_rate)` -> `Optimizer`.

    return [Component("plain-sgd", lambda _, rate: mlx.optimizers.SGD(rate))]
    """
    raise NotImplementedError


@hookspec
def fewshot_schedules() -> Iterable[Component]:
    """The learning rate over a training, as a factor: `factory(options, steps)` -> `Schedule`.

    return [Component("late", lambda _, steps: lambda step: mx.where(step < steps / 2, 1.0, 0.1))]
    """
    raise NotImplementedError


@hookspec
def fewshot_datasets() -> Iterable[Component]:
    """Data sets: `factory(options)` -> `Dataset`.

    return [Component("omniglot", omniglot, OmniglotOptions)]
    """
    raise NotImplementedError


@hookspec
def fewshot_transforms() -> Iterable[Component]:
    """Transforms: `factory(options)` -> `Transform`.

    return [Component("invert", lambda _: lambda images, rng: 1 - images)]
    """
    raise NotImplementedError


@hookspec
def fewshot_mixers() -> Iterable[Component]:
    """Images of a batch mixed, and their targets: `factory(options)` -> `Mixer`.

    return [Component("halves", lambda _: Mixer(halves))]  # halves(images, targets, rng) -> both
    """
    raise NotImplementedError


@hookspec
def fewshot_observers() -> Iterable[Component]:
    """Told of a run: `factory(options)` -> `Observer`.

    return [Component("printer", lambda _: Observer(record=print))]
    """
    raise NotImplementedError


@hookspec
def fewshot_presets() -> Iterable[Preset]:
    """Partial configurations by name.

    return [Preset("tiny", {"backbone": {"name": "conv4", "width": 16}})]
    """
    raise NotImplementedError


@hookspec
def fewshot_studies() -> Iterable[Study]:
    """Tables of runs by name.

    return [Study("widths", {"narrow": {"backbone": {"width": 16}}, "wide": {}})]
    """
    raise NotImplementedError
