"""How one step learns: from a batch to gradients."""

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import evolve, frozen
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from ..compute.modules import evaluating, parameter_count
from ..core.components import Component
from ..core.errors import ConfigError
from ..core.interfaces import Batch, Head, Learner, Loss, Metric
from ..core.options import NoOptions, at_least, option, positive
from .heads.prototypes import prototypes

Figures = tuple[mx.array, ...]
Rate = Callable[[int, str], Any]  # of the inner step and the parameter's name


def plain(_: NoOptions = NoOptions()) -> Learner:
    """The gradient of the objective, as it is."""

    def step(model: nn.Module, objective: Any, batch: Batch) -> tuple[Figures, Any]:
        return nn.value_and_grad(model, objective)(batch)

    return Learner(step)


# ------------------------------------------------------------------------ the inner steps


def descend(
    module: nn.Module,
    loss: Callable[[], mx.array],
    steps: int,
    rate: Rate,
    second_order: bool | mx.array = False,
) -> Iterator[None]:
    """Gradient steps of a module on its own loss, in place: stops before the first, after each.

    A step is in eval mode, so that buffers stay; modes are their own at every stop. What has the
    rate None stays. `second_order`: the steps' gradients have gradients too; of an array, that
    share of them.
    """
    yield
    for step in range(steps):
        weights = module.trainable_parameters()
        with evaluating(module):
            _, gradients = nn.value_and_grad(module, loss)()
        if second_order is not True:
            gradients = tree_map(lambda g: _partly(g, second_order), gradients)
        rates = tree_map_with_path(lambda name, _, at=step: rate(at, name), weights)
        module.update(
            tree_map(
                lambda one, by, gradient: one if by is None else one - by * gradient,
                weights,
                rates,
                gradients,
            )
        )
        yield


def _partly(gradient: mx.array, share: bool | mx.array) -> mx.array:
    """The same, with that share of its own gradient."""
    constant = mx.stop_gradient(gradient)
    return constant if share is False else constant + share * (gradient - constant)


# The steps on a support, as `Learner.adapt` with a stop before the first and after each.
_Steps = Callable[[Any, Batch, Metric, Loss, Head], Iterator[nn.Linear | None]]


def _mean_loss(
    rows: mx.array, support: Batch, loss: Loss, scored: Callable[[mx.array, mx.array], mx.array]
) -> mx.array:
    """The loss of the support, asked about itself."""
    labels = support.draws[0]["support_labels"]
    return loss.fn(scored(rows, labels), labels).mean()


def _of_backbone(who: str, steps: int, rate: Rate, second_order: bool | mx.array) -> _Steps:
    """The backbone's steps, by the scores of the run's head."""

    def inner(
        embedder: Any, support: Batch, metric: Metric, loss: Loss, head: Head
    ) -> Iterator[None]:
        _require_trainable(who, embedder.backbone, steps)
        (n_way,) = support.n_ways

        def asked() -> mx.array:
            return _mean_loss(
                embedder(support.images),
                support,
                loss,
                lambda rows, labels: head(rows, labels, rows, metric, n_way),
            )

        yield from descend(embedder.backbone, asked, steps, rate, second_order)

    return inner


def _require_trainable(who: str, backbone: nn.Module, steps: int) -> None:
    if steps and not parameter_count(backbone):
        raise ConfigError(
            f"{who} trains the backbone, which is frozen: --set backbone.frozen=false, where it "
            "has that option, or --adapter linear-probe"
        )


def _last(steps: Iterator[nn.Linear | None]) -> nn.Linear | None:
    *_, classes = steps
    return classes


def _meta(
    inner: _Steps,
    steps: int,
    module: nn.Module | None = None,
    shares: Callable[[], mx.array] | None = None,
) -> Learner:
    """Gradients of the objective after so many inner steps, a mean over the episodes.

    `shares`: what the objective after each step counts for; None: that after the last alone.
    """

    def step(model: nn.Module, objective: Any, batch: Batch) -> tuple[Figures, Any]:
        def adapted(episode: Batch) -> Figures:
            weights, found = model.trainable_parameters(), []
            stops = inner(
                objective.embedder, episode.of_support(), objective.metric, objective.loss,
                objective.head,
            )  # fmt: skip
            for at, classes in enumerate(stops):
                if at == steps or (shares is not None and at):
                    by = {} if classes is None else {"head": linear_head(classes)}
                    found.append((evolve(objective, **by) if by else objective)(episode))
            model.update(weights)
            counts = shares() if shares is not None and steps else mx.ones(1)
            each = zip(*found, strict=True)
            return tuple((counts * mx.stack(list(figure))).sum() for figure in each)

        def outer() -> Figures:
            every = zip(*map(adapted, batch.split()), strict=True)
            return tuple(mx.stack(list(figure)).mean() for figure in every)

        found = nn.value_and_grad(model, outer)()
        if module is not None:
            module.running_steps = module.running_steps + 1
        return found

    return Learner(step, "episode", lambda *task: _last(inner(*task)), module)


def linear_head(classes: nn.Linear) -> Head:
    """One that is fitted already: a linear layer of the classes, whatever support it is given."""

    def fit(support: mx.array, *_: Any) -> tuple[mx.array, ...]:
        bias = classes.bias if "bias" in classes else mx.zeros(classes.weight.shape[0])
        state = classes.weight.T, bias[None]
        return tuple(mx.broadcast_to(part, (*support.shape[:-2], *part.shape)) for part in state)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        return query @ state[0] + state[1]

    return Head(fit, scores, differentiable=True)


# ------------------------------------------------------------------------------- learners


@frozen
class MamlOptions:
    """Options of model-agnostic meta-learning; the last three are MAML++'s."""

    inner_steps: int = option(3, "gradient steps on the support of an episode", at_least(0))
    inner_rate: float = option(0.01, "learning rate of these steps", positive)
    second_order: bool = option(
        True, "differentiate through the inner steps; false: take their gradients for constants"
    )
    learned_rates: bool = option(
        False, "learn a rate of every inner step and layer, of which inner_rate is the first"
    )
    multi_step: int = option(
        0,
        "training steps in which the losses after all inner steps count, ever more the last; 0: "
        "it alone",
        at_least(0),
    )
    first_order_steps: int = option(
        0, "training steps before the second order sets in", at_least(0)
    )


class MamlState(nn.Module):
    """What MAML++ keeps: rates (inner steps, layers), if learned, and the training steps taken."""

    def __init__(self, rates: mx.array | None) -> None:
        super().__init__()
        if rates is not None:
            self.rates = rates
        self.running_steps = mx.array(0.0)
        self.freeze(recurse=False, keys=["running_steps"])


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def maml(options: MamlOptions = MamlOptions(), *, backbone: nn.Module | None = None) -> Learner:
    """Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, algorithm 2).

    The loss of every episode is that of a backbone θ which took gradient steps (eq. 1),
    θ ← θ − α ∇L(θ), on the loss of the episode's support, asked about itself; figures and
    gradients are means over the episodes. What else is learned (a metric's weights, a head's) has
    no inner steps. First order is the paper's approximation of section 5.2.

    Three options are of MAML++ (Antoniou, Edwards & Storkey 2019, section 4): α of every inner step
    and layer is learned, from `inner_rate` on; the loss is Σ vᵢ Lᵢ over those after each of N inner
    steps (eq. 4), where v goes in a line from 1/N each to 1 for the last; the second order sets in
    after some training steps. Its statistics of batch norm by step are not here.

    The inner steps are in eval mode: batch norm normalises by its running statistics, and nothing
    is dropped. The loss after them is in training mode. Raises ConfigError where rates are to be
    learned and no backbone is given.
    """
    steps, layers, kept = options.inner_steps, list[str](), None
    learned = options.learned_rates and steps > 0
    if learned:
        if backbone is None:
            raise ConfigError("learner 'maml' learns the rates of a backbone's layers: give one")
        named: Any = tree_flatten(backbone.trainable_parameters())
        layers = [*dict.fromkeys(_layer(name) for name, _ in named)]
    if learned or options.multi_step or options.first_order_steps:
        kept = MamlState(mx.full((steps, len(layers)), options.inner_rate) if learned else None)

    def rate(step: int, name: str) -> Any:
        if kept is None or not learned:
            return options.inner_rate
        return kept.rates[step, layers.index(_layer(name))]

    def shares() -> mx.array:
        assert kept is not None
        gone = mx.minimum(kept.running_steps / options.multi_step, 1)
        return (1 - gone) / steps + gone * (mx.arange(steps) == steps - 1)

    def inner(*task: Any) -> Iterator[nn.Linear | None]:
        order: bool | mx.array = options.second_order
        if order and kept is not None and options.first_order_steps:
            order = (kept.running_steps >= options.first_order_steps).astype(mx.float32)
        return _of_backbone("maml", steps, rate, order)(*task)

    return _meta(inner, steps, kept, shares if options.multi_step else None)


@frozen
class AnilOptions:
    """Options of ANIL."""

    inner_steps: int = option(5, "gradient steps on the support of an episode", at_least(0))
    inner_rate: float = option(5.0, "learning rate of these steps", positive)
    second_order: bool = option(
        True, "differentiate through the inner steps; false: take their gradients for constants"
    )


def anil(options: AnilOptions = AnilOptions()) -> Learner:
    """Almost no inner loop (Raghu et al. 2020, section 4): MAML whose last layer alone takes steps.

    Scores are W x + b of embeddings x; W and b take gradient steps on the loss of the support, from
    zeros, the same for every class (Kao et al. 2022's zeroing; the original learns a start for
    classes of which there are always as many). The network is trained by the loss of the queries
    after them, through the steps. The metric and the run's head have no say.
    """
    return _meta(_of_classes("anil", options, False), options.inner_steps)


@frozen
class ProtoMamlOptions:
    """Options of Proto-MAML."""

    inner_steps: int = option(3, "gradient steps on the support of an episode", at_least(0))
    inner_rate: float = option(0.01, "learning rate of these steps", positive)
    second_order: bool = option(
        True, "differentiate through the inner steps; false: take their gradients for constants"
    )


def proto_maml(options: ProtoMamlOptions = ProtoMamlOptions()) -> Learner:
    """MAML with a last layer that starts at the prototypes (Triantafillou et al. 2020, section 3).

    Scores are W x + b of embeddings x; of class k, W starts at 2 cₖ and b at −|cₖ|² (eq. 5), c the
    prototypes of the support, so that scores without a step are minus the squared distances to
    them, but for |x|². Backbone, W and b take the steps, and gradients go through the prototypes,
    too. The metric and the run's head have no say.
    """
    return _meta(_of_classes("proto-maml", options, True), options.inner_steps)


def _of_classes(who: str, options: AnilOptions | ProtoMamlOptions, whole: bool) -> _Steps:
    """Steps of a linear layer from embeddings to classes; `whole`: of the backbone, too.

    It starts at the prototypes where the backbone moves, else at zeros.
    """

    def inner(
        embedder: Any, support: Batch, metric: Metric, loss: Loss, head: Head
    ) -> Iterator[nn.Linear]:
        if loss.requires:
            raise ConfigError(
                f"{who} asks the loss about scores of a linear layer, which are no distances, and "
                "this loss wants them: --loss prototypical"
            )
        (n_way,) = support.n_ways
        with evaluating(embedder.backbone):
            rows = embedder(support.images)
        classes, moving = nn.Linear(1, 1), nn.Module()
        moving.classes = classes
        if whole:
            _require_trainable(who, embedder.backbone, options.inner_steps)
            moving.backbone = embedder.backbone
            means = prototypes(rows, support.draws[0]["support_labels"], n_way)
            classes.weight, classes.bias = 2 * means, -mx.square(means).sum(axis=-1)
        else:
            # A gradient inside another must be by all that it sees of what the outer one is by:
            # MLX takes the rest for constants from then on wherever a function is compiled.
            moving.rows = rows
            classes.weight, classes.bias = mx.zeros((n_way, rows.shape[-1])), mx.zeros(n_way)

        def asked() -> mx.array:
            now = embedder(support.images) if whole else moving.rows
            return _mean_loss(now, support, loss, lambda rows, _: classes(rows))

        def rate(_: int, name: str) -> float | None:
            return None if name == "rows" else options.inner_rate

        for _ in descend(moving, asked, options.inner_steps, rate, options.second_order):
            yield classes

    return inner


@frozen
class ReptileOptions:
    """Options of Reptile."""

    inner_steps: int = option(5, "gradient steps on every draw", at_least(1))
    inner_rate: float = option(0.01, "learning rate of these steps", positive)


def reptile(options: ReptileOptions = ReptileOptions()) -> Learner:
    """Towards where some steps of training lead (Nichol, Achiam & Schulman 2018, algorithm 2).

    Of every draw all weights φ take k gradient steps to W; the gradient that the optimizer follows
    is the mean of (φ − W) / α over the draws (section 3), α the rate of the steps: their gradients'
    sum, that of `plain` where k = 1. All steps of a draw see all its images; the original draws
    some of the task's for each. Steps are those of a training: in its mode, of its whole loss.
    Figures are those before the first. No gradient goes through a step.
    """

    def step(model: nn.Module, objective: Any, batch: Batch) -> tuple[Figures, Any]:
        start = model.trainable_parameters()
        firsts, ways = [], []
        for draw in batch.split():
            weights = start
            for at in range(options.inner_steps):
                figures, gradients = nn.value_and_grad(model, objective)(draw)
                weights = tree_map(lambda w, g: w - options.inner_rate * g, weights, gradients)
                model.update(weights)
                if not at:
                    firsts.append(figures)
            ways.append(tree_map(lambda a, b: (a - b) / options.inner_rate, start, weights))
            model.update(start)
        means = tuple(mx.stack(list(f)).mean() for f in zip(*firsts, strict=True))
        return means, tree_map(lambda *each: sum(each) / len(each), *ways)

    inner = _of_backbone("reptile", options.inner_steps, lambda *_: options.inner_rate, False)
    return Learner(step, adapt=lambda *task: _last(inner(*task)))


COMPONENTS = (
    Component("plain", plain, summary="the gradient of the loss, as it is"),
    Component(
        "maml",
        maml,
        MamlOptions,
        "the loss after a few steps on each episode's support; options of MAML++",
    ),
    Component(
        "anil",
        anil,
        AnilOptions,
        "maml whose steps are those of a linear layer of classes alone, from zeros",
    ),
    Component(
        "proto-maml",
        proto_maml,
        ProtoMamlOptions,
        "maml with a linear layer of classes, which starts at the prototypes",
    ),
    Component(
        "reptile",
        reptile,
        ReptileOptions,
        "towards where some steps of training lead, draw by draw",
    ),
)
