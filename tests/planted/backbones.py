"""Backbones with a fault, and odd ones without."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from fewshot import ConfigError, Conv4Options, conv4
from planted import Collection

CASES = Collection("backbone")


class Linear(nn.Module):
    """Every image flattened and multiplied: the base of what follows, itself sound."""

    def __init__(self, shape, d=8):
        super().__init__()
        self.embedding_dim = d
        self.linear = nn.Linear(int(np.prod(shape)), d)

    def __call__(self, images):
        return self.linear(images.reshape(len(images), -1))


def of(call, parts=None, **attributes):
    """A factory of `Linear` whose embedding is changed: `call(module, images, embedded)`."""

    class Changed(Linear):
        def __init__(self, shape):
            super().__init__(shape)
            for name, value in {**(parts() if parts else {}), **attributes}.items():
                setattr(self, name, value)

        def __call__(self, images):
            return call(self, images, super().__call__(images))

    return Changed


@CASES.breaks("made")
def a_bare_function(_, shape):
    return lambda images: images.reshape(len(images), -1)


@CASES.breaks("made")
def no_embedding_dim(_, shape):
    return nn.Linear(3, 4)


@CASES.breaks("made whole")
def weights_at_the_first_call(_, shape):
    class Late(nn.Module):
        embedding_dim = 8

        def __call__(self, images):
            if "linear" not in self:
                self.linear = nn.Linear(int(np.prod(shape)), 8)
            return self.linear(images.reshape(len(images), -1))

    return Late()


@CASES.breaks("shape")
def a_wrong_embedding_dim(_, shape):
    return of(lambda self, images, out: out, embedding_dim=9)(shape)


@CASES.breaks("shape")
def a_map_not_flattened(_, shape):
    return of(lambda self, images, out: out[:, None, :])(shape)


@CASES.breaks("shape")
def squeezes_one_image(_, shape):
    return of(lambda self, images, out: out.squeeze())(shape)


@CASES.breaks("float32")
def half_precision(_, shape):
    return of(lambda self, images, out: out.astype(mx.float16))(shape)


@CASES.breaks("other shapes")
def three_channels_whatever_is_said(_, shape):
    return Linear((*shape[:2], 3))


@CASES.breaks("other shapes")
def square_images_only(_, shape):
    return Linear((shape[0], shape[0], shape[2]))


@CASES.breaks("finite")
def standardises_each_image(_, shape):
    def call(self, images, out):
        spread = images.var((1, 2, 3))[:, None]
        return out / mx.sqrt(spread)

    return of(call)(shape)


@CASES.breaks("image alone")
def centred_by_its_batch(_, shape):
    return of(lambda self, images, out: out - out.mean(0))(shape)


@CASES.breaks("image alone")
def batch_norm_by_hand(_, shape):
    def call(self, images, out):
        return (out - out.mean(0)) * mx.rsqrt(out.var(0) + 1e-5)

    return of(call)(shape)


@CASES.breaks("asked twice")
def dropout_always_on(_, shape):
    def call(self, images, out):
        return out * (mx.random.uniform(shape=out.shape) > 0.5)

    return of(call)(shape)


class Stubborn(nn.BatchNorm):
    """Stays in training mode whatever is asked."""

    @property
    def training(self):
        return True


@CASES.breaks("eval reaches all")
def deaf_to_eval(_, shape):
    return of(lambda self, images, out: self.norm(out), lambda: {"norm": Stubborn(8)})(shape)


@CASES.breaks("eval changes nothing")
def counts_what_it_saw(_, shape):
    def call(self, images, out):
        self.seen = self.seen + len(images)
        return out

    return of(call, lambda: {"seen": mx.array(0.0)})(shape)


@CASES.breaks("tells apart")
def one_embedding_for_all(_, shape):
    return of(lambda self, images, out: 0 * out + self.linear.bias)(shape)


@CASES.breaks("inputs untouched")
def normalises_in_place(_, shape):
    class InPlace(Linear):
        def __call__(self, images):
            images -= 0.5
            return super().__call__(images)

    return InPlace(shape)


@CASES.breaks("trains")
def a_gradient_cut_off(_, shape):
    return of(lambda self, images, out: mx.stop_gradient(out))(shape)


@CASES.breaks("trains")
def a_root_at_zero(_, shape):
    def call(self, images, out):
        return out + mx.sqrt(mx.abs(self.gate)) * out

    return of(call, lambda: {"gate": mx.zeros(8)})(shape)


@CASES.breaks("seeded")
def weights_from_numpy(_, shape):
    made = Linear(shape)
    made.linear.weight = mx.array(np.random.default_rng().normal(size=made.linear.weight.shape))
    made.linear.weight = made.linear.weight.astype(mx.float32)
    return made


@CASES.breaks("saved whole")
def a_projection_in_a_private_attribute(_, shape):
    projection = mx.random.normal((8, 8))
    return of(lambda self, images, out: out @ projection)(shape)


@CASES.breaks("saved whole")
def running_mean_in_numpy(_, shape):
    def call(self, images, out):
        if self.training:
            self._mean[:] = np.array(out).mean(0)
        return out - mx.array(self._mean)

    return of(call, lambda: {"_mean": np.zeros(8, np.float32)})(shape)


# ------------------------------------------------------------------------------ odd and sound


def reads(text):
    """A factory of `Linear` that has `text`: `text(numbers (n, 8) of the names)`."""

    def of_names(names):
        rng = [np.random.default_rng(list(name.encode())) for name in names]
        return mx.array(text(np.stack([one.normal(size=8) for one in rng])), mx.float32)

    return of(lambda module, images, embedded: embedded, text=of_names)


@CASES.breaks("text")
def names_of_another_length(_, shape):
    return reads(lambda numbers: numbers[:, :7])(shape)


@CASES.breaks("text")
def names_about_their_mean(_, shape):
    return reads(lambda numbers: numbers - numbers.mean(0))(shape)


@CASES.breaks("text")
def names_that_nobody_reads(_, shape):
    return reads(np.ones_like)(shape)


@CASES.sound
def names_and_images(_, shape):
    return reads(lambda numbers: numbers)(shape)


@CASES.sound
def linear(_, shape):
    return Linear(shape)


@CASES.sound
def raw_pixels_without_a_weight(_, shape):
    class Pixels(nn.Module):
        embedding_dim = int(np.prod(shape))

        def __call__(self, images):
            return images.reshape(len(images), -1)

    return Pixels()


@CASES.sound
def frozen_as_a_pretrained_one(_, shape):
    return conv4(Conv4Options(4), shape).freeze()


@CASES.sound
def only_large_images(_, shape):
    if shape[0] < 84 or shape[2] != 3:
        raise ConfigError(f"84x84 RGB at least, not {shape}")
    return Linear(shape)


@CASES.sound
def with_dropout(_, shape):
    return of(
        lambda self, images, out: self.drop(out), lambda: {"drop": nn.Dropout(0.5)}
    )(shape)  # fmt: skip


@CASES.sound
def an_unused_weight(_, shape):
    return of(lambda self, images, out: out, lambda: {"spare": mx.ones(4)})(shape)
