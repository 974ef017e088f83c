"""Optimizers with a fault, and odd ones without."""

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx.utils import tree_map

from planted import Collection

CASES = Collection("optimizer")


class Own(optimizers.SGD):
    """Gradient descent with momentum 0.5, to be changed."""

    def __init__(self, rate):
        super().__init__(rate, momentum=0.5)


@CASES.breaks("made")
def a_function(_, rate):
    return lambda model, gradients: model.update(gradients)


@CASES.breaks("made")
def without_state(_, rate):
    class Stateless:
        def init(self, parameters):
            pass

        def update(self, model, gradients):
            pass

    return Stateless()


@CASES.breaks("made")
def numbers_alone(_, rate):
    return Own(rate) if isinstance(rate, float) else None


@CASES.breaks("the rate")
def asks_for_the_rate_once(_, rate):
    return Own(0.1)


@CASES.breaks("the rate")
def a_rate_of_its_own(_, rate):
    return optimizers.Adafactor(rate)


@CASES.breaks("the rate")
def decays_apart_from_the_rate(_, rate):
    class Decaying(Own):
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(gradient, 0.99 * parameter, state)

    return Decaying(rate)


@CASES.breaks("the rate")
def matrices_alone(_, rate):
    class Matrices(Own):
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(gradient * (gradient.ndim > 1), parameter, state)

    return Matrices(rate)


@CASES.breaks("downhill")
def the_wrong_sign(_, rate):
    class Uphill(Own):
        def apply_single(self, gradient, parameter, state):
            return super().apply_single(-gradient, parameter, state)

    return Uphill(rate)


@CASES.breaks("downhill")
def momentum_without_end(_, rate):
    return optimizers.SGD(rate, momentum=1.9)


@CASES.breaks("finite")
def divides_by_the_length(_, rate):
    class Unit(Own):
        def apply_single(self, gradient, parameter, state):
            length = mx.sqrt(mx.square(gradient).sum())
            return super().apply_single(gradient / length, parameter, state)

    return Unit(rate)


@CASES.breaks("state")
def begins_at_the_first_update(_, rate):
    class Late(Own):
        def init_single(self, parameter, state):
            state["seen"] = mx.array(False)

        def apply_single(self, gradient, parameter, state):
            state.setdefault("v", mx.zeros_like(parameter))
            return super().apply_single(gradient, parameter, state)

    return Late(rate)


@CASES.breaks("state")
def a_word(_, rate):
    optimizer = Own(rate)
    optimizer.state["kind"] = "sgd"
    return optimizer


@CASES.breaks("in place")
def a_new_tree_every_time(_, rate):
    class Copied(Own):
        def apply_gradients(self, gradients, parameters):
            self._state = tree_map(lambda array: array, self._state)
            return super().apply_gradients(gradients, parameters)

    return Copied(rate)


@CASES.breaks("going on")
def counts_in_python(_, rate):
    class Counting(Own):
        count = 0

        def apply_gradients(self, gradients, parameters):
            self.count += 1
            gradients = tree_map(lambda g: g / self.count, gradients)
            return super().apply_gradients(gradients, parameters)

    return Counting(rate)


@CASES.breaks("going on")
def begins_again_at_init(_, rate):
    class Forgetful(Own):
        def init(self, parameters):
            super().init(parameters)
            zeros = tree_map(mx.zeros_like, parameters)
            tree_map(lambda zero, state: state.update(v=zero), zeros, self._state)

    return Forgetful(rate)


_SHARED = []


@CASES.breaks("anew")
def the_same_one(_, rate):
    _SHARED[:] = _SHARED or [Own(rate)]
    return _SHARED[0]


@CASES.breaks("the rest stays")
def decays_what_is_frozen(_, rate):
    class Decaying(Own):
        def update(self, model, gradients):
            model.update(tree_map(lambda p: 0.999 * p, model.parameters()))
            super().update(model, gradients)

    return Decaying(rate)


@CASES.breaks("the rest stays")
def writes_on_gradients(_, rate):
    class Writing(Own):
        def apply_single(self, gradient, parameter, state):
            gradient += 0.01 * parameter
            return super().apply_single(gradient, parameter, state)

    return Writing(rate)


@CASES.breaks("traceable")
def looks_at_the_gradient(_, rate):
    class Looking(Own):
        def apply_single(self, gradient, parameter, state):
            if mx.abs(gradient).max().item() > 1:
                gradient = mx.sign(gradient)
            return super().apply_single(gradient, parameter, state)

    return Looking(rate)


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def muon_for_matrices_adam_for_the_rest(_, rate):
    return optimizers.MultiOptimizer(
        [optimizers.Muon(rate), optimizers.Adam(rate)], [lambda name, array: array.ndim > 1]
    )


@CASES.sound
def noisy_by_mlx(_, rate):
    class Noisy(Own):
        def apply_single(self, gradient, parameter, state):
            noise = mx.random.uniform(0.9, 1.1, gradient.shape)
            return super().apply_single(gradient * noise, parameter, state)

    return Noisy(rate)


@CASES.sound
def not_derived(_, rate):
    """Gradient descent with what an optimizer must have, and nothing else."""

    class Plain:
        def __init__(self):
            self.state = {"step": mx.array(0, mx.uint64)}

        def init(self, parameters):
            pass

        def update(self, model, gradients):
            now = rate(self.state["step"]) if callable(rate) else rate
            weights = model.trainable_parameters()
            model.update(tree_map(lambda p, g: p - now * g, weights, gradients))
            self.state["step"] = self.state["step"] + 1

    return Plain()
