"""What changes weights by gradients: those of `mlx.optimizers`.

Every factory takes (options, learning_rate), the rate being a number or a function of the step,
and returns an `Optimizer`. None decays weights unless it is told to.
"""

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.optimizers as optimizers
from attrs import frozen

from ..core.components import Component
from ..core.interfaces import Optimizer
from ..core.options import NoOptions, at_least, below, option, share, within

Rate = float | Callable[[mx.array], mx.array]

_kept = within(at_least(0), below(1))

# Two kinds of weight decay: apart from the gradient (Loshchilov & Hutter 2019), and in it.
_apart = partial(
    option, 0.0, "share of the weights taken off at a step, times the rate", at_least(0)
)
_added = partial(option, 0.0, "share of the weights added to the gradient", at_least(0))


@frozen
class AdamOptions:
    """Options of Adam and Adamax."""

    beta1: float = option(0.9, "share of the mean gradient kept at a step", _kept)
    beta2: float = option(0.999, "share of the gradient's mean size kept at a step", _kept)


@frozen
class AdamwOptions:
    """Options of Adam with a weight decay of its own."""

    weight_decay: float = _apart()
    beta1: float = option(0.9, "share of the mean gradient kept at a step", _kept)
    beta2: float = option(0.999, "share of the gradient's mean size kept at a step", _kept)


@frozen
class SgdOptions:
    """Options of gradient descent."""

    momentum: float = option(0.9, "share of the last update kept at a step", share)
    nesterov: bool = option(False, "the gradient is followed a step ahead")
    weight_decay: float = _added()

    def __attrs_post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = true needs a momentum above 0")


@frozen
class LionOptions:
    """Options of Lion."""

    weight_decay: float = _apart()
    beta1: float = option(0.9, "share of the mean gradient in a step's direction", _kept)
    beta2: float = option(0.99, "share of the mean gradient kept at a step", _kept)


@frozen
class MuonOptions:
    """Options of Muon."""

    momentum: float = option(0.95, "share of the mean gradient kept at a step", _kept)
    nesterov: bool = option(True, "the gradient is followed a step ahead")
    weight_decay: float = _added()


@frozen
class AdafactorOptions:
    """Options of Adafactor."""

    scaled: bool = option(True, "the rate is a share of the weights' own mean size")
    weight_decay: float = _apart()


@frozen
class RmspropOptions:
    """Options of RMSprop."""

    kept: float = option(0.99, "share of the gradient's mean square kept at a step", _kept)


@frozen
class AdadeltaOptions:
    """Options of AdaDelta."""

    kept: float = option(0.9, "share of the mean squares kept at a step", _kept)


def adam(options: AdamOptions, learning_rate: Rate) -> Optimizer:
    """Adam, with the correction of both means for their start (Kingma & Ba 2015)."""
    betas = [options.beta1, options.beta2]
    return optimizers.Adam(learning_rate, betas, bias_correction=True)


def adamw(options: AdamwOptions, learning_rate: Rate) -> Optimizer:
    """Adam, weights decaying apart from the gradient (Loshchilov & Hutter 2019)."""
    return optimizers.AdamW(
        learning_rate,
        [options.beta1, options.beta2],
        weight_decay=options.weight_decay,
        bias_correction=True,
    )


def adamax(options: AdamOptions, learning_rate: Rate) -> Optimizer:
    """Adam by the largest gradient in place of the mean square (Kingma & Ba 2015, section 7.1)."""
    return optimizers.Adamax(learning_rate, [options.beta1, options.beta2])


def sgd(options: SgdOptions, learning_rate: Rate) -> Optimizer:
    """Gradient descent with momentum, Nesterov's where asked for (Sutskever et al. 2013)."""
    return optimizers.SGD(
        learning_rate, options.momentum, options.weight_decay, nesterov=options.nesterov
    )


def lion(options: LionOptions, learning_rate: Rate) -> Optimizer:
    """The sign of a mean gradient (Chen et al. 2023): wants a tenth to a third of Adam's rate."""
    return optimizers.Lion(learning_rate, [options.beta1, options.beta2], options.weight_decay)


def muon(options: MuonOptions, learning_rate: Rate) -> Optimizer:
    """Mean gradients of matrices made orthogonal (Jordan et al. 2024); of vectors, as they are."""
    return optimizers.Muon(learning_rate, options.momentum, options.weight_decay, options.nesterov)


def adafactor(options: AdafactorOptions, learning_rate: Rate) -> Optimizer:
    """Mean squares of rows and columns in place of a matrix of them (Shazeer & Stern 2018)."""
    return optimizers.Adafactor(
        learning_rate,
        weight_decay=options.weight_decay,
        scale_parameter=options.scaled,
        relative_step=False,  # else it follows no rate but its own
    )


def rmsprop(options: RmspropOptions, learning_rate: Rate) -> Optimizer:
    """The gradient over its mean size (Tieleman & Hinton 2012)."""
    return optimizers.RMSprop(learning_rate, options.kept)


def adagrad(_: NoOptions, learning_rate: Rate) -> Optimizer:
    """The gradient over the root of the sum of its squares (Duchi et al. 2011)."""
    return optimizers.Adagrad(learning_rate)


def adadelta(options: AdadeltaOptions, learning_rate: Rate) -> Optimizer:
    """Steps as long as earlier ones were (Zeiler 2012), times the rate: 1 is the paper's."""
    return optimizers.AdaDelta(learning_rate, options.kept)


COMPONENTS = (
    Component("adam", adam, AdamOptions, "by mean and mean square of the gradient"),
    Component("adamw", adamw, AdamwOptions, "adam with weight decay"),
    Component("adamax", adamax, AdamOptions, "adam by the largest gradient"),
    Component("sgd", sgd, SgdOptions, "gradient descent with momentum"),
    Component(
        "lion",
        lion,
        LionOptions,
        "by the sign of a mean gradient",
        implies={"training": {"learning_rate": 1e-4}},
    ),
    Component("muon", muon, MuonOptions, "mean gradients of matrices, made orthogonal"),
    Component("adafactor", adafactor, AdafactorOptions, "adam with less to remember"),
    Component("rmsprop", rmsprop, RmspropOptions, "the gradient over its mean size"),
    Component("adagrad", adagrad, summary="the gradient over the root of all its squares so far"),
    Component(
        "adadelta",
        adadelta,
        AdadeltaOptions,
        "steps as long as earlier ones",
        implies={"training": {"learning_rate": 1.0}},
    ),
)
