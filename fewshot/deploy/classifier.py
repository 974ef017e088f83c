"""From images to class names, and "unknown": a network with a support of one's own."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import asdict, evolve, field, frozen
from numpy.typing import NDArray
from scipy.special import softmax

from ..catalogue.loading import build_registry
from ..catalogue.registry import Registry
from ..compute.folding import folded
from ..compute.modules import copied, evaluating
from ..compute.threads import one_at_a_time
from ..core.draws import labels_with_crops
from ..core.errors import ConfigError, DataError, FewshotError, OutputError, choose_from
from ..core.interfaces import Head, Metric
from ..core.options import as_names
from ..data.batches import batch_size
from ..data.class_names import class_name, require_names
from ..data.corners import corners
from ..data.images import Picture, Reading, Shape, decode_images
from ..engine.calibration import Calibration, Fitted, fitted, for_counts, from_enrolled
from ..engine.inference import Engine, as_engine
from ..parts.embedder import Embedder
from ..parts.heads.prototypes import lda
from ..parts.metrics import euclidean
from . import archive, document, recipe
from .comparison import Compare, comparison
from .given import by_name, listed, or_raise, require_alone, shape_of
from .recipe import Recipe
from .support import Prediction, Support, no_support, with_others

_FIRST, _BATCH = 4, 128  # images asked at once: few to begin with, so that answers come soon


@frozen(eq=False)
class Classifier:
    """A few-shot classifier: a network, and a support that grows and shrinks.

    A value: `enrol` and `remove` give another one. Made with `Classifier.load` or `Classifier.of`.
    Any thread may use it; all but the main one wait for each other where it computes.
    `embedder` has a folded backbone and takes images of `shape` (h, w, c). `calibrations`: a run's,
    by K, or that of the classes as they are. `threshold`: the distance beyond which an image is
    unknown, where the calibrated one is not wanted. `text` (n, d): embeddings of the classes'
    names, where the head reads them; no class needs an image then. `reading`: how images are read;
    its `max_pixels` is not saved. `engine`: what embeds images, "auto", "mlx" or "onnx", as in
    `evolve(classifier, engine="mlx")`; it is not saved.
    """

    embedder: Embedder
    metric: Metric
    head: Head
    support: Support
    shape: Shape
    classes: tuple[str, ...] = field(default=(), converter=as_names)
    calibrations: tuple[Calibration, ...] = ()
    threshold: float | None = None
    recipe: Recipe | None = None
    text: NDArray[np.float32] | None = None
    reading: Reading = Reading()
    engine: Engine = field(factory=lambda: Engine("auto"), converter=as_engine)
    # By file: the SHA-256 of what was read from it or written to it, by this one or one it is of.
    _seen: dict[Path, str] = field(factory=dict, repr=False, alias="seen")

    def __attrs_post_init__(self) -> None:
        if self.threshold is not None and math.isnan(self.threshold):
            raise ConfigError("a threshold is a distance, not nan")

    def __repr__(self) -> str:
        network = f", {self.recipe.backbone.name}" if self.recipe else ""
        return f"Classifier({len(self.support)} images of {len(self.classes)} classes{network})"

    @classmethod
    def of(
        cls,
        network: str | Mapping[str, Any] | Embedder,
        images: Mapping[Any, Any] | Sequence[str],
        head: Head | None = None,
        metric: Metric | None = None,
        registry: Registry | None = None,
    ) -> "Classifier":
        """A classifier of the named classes from images of each, one or more; nothing is trained.

        `network`: the name of a backbone that comes with weights, or a configuration such as
        `{"backbone": {"name": …, "frozen": True}, "head": "nearest-prototype", "preset": …}`. Its
        images are what `enrol` takes, of any size. Raises ConfigError for a backbone without
        weights of its own. Of names alone, or names without images, the head is `tip-adapter` if
        none is named, and the network must have text.

        Or an embedder, with a head (`lda` if None) and a metric (`euclidean`): the images of a
        class are then (k, h, w, c) uint8, all of one size. It is copied: training it on changes
        nothing. Such a classifier cannot be saved, as nothing names its parts.

        Raises DataError for no class, a class without images and images that cannot be used.
        """
        images = {name: listed(of_class) for name, of_class in by_name(images).items()}
        if not images:
            raise DataError("a classifier needs at least one class")
        if isinstance(network, Embedder):
            parts = (metric or euclidean(), head or lda())
            return _blank(network.for_any_classes(), *parts, shape_of(images)).enrol(images)
        if head is not None or metric is not None:
            raise ConfigError(
                "head and metric of a named network are named beside it, so that the classifier "
                "can be saved: {'backbone': NAME, 'head': NAME, 'metric': NAME}"
            )
        layer = {"backbone": network} if isinstance(network, str) else network
        below = [] if any(images.values()) else [OF_NAMES]
        return cls.blank([*below, layer], registry).enrol(images)

    @classmethod
    @one_at_a_time
    def blank(
        cls,
        layers: Sequence[Mapping[str, Any]],
        registry: Registry | None = None,
        without_adapter: bool = False,
    ) -> "Classifier":
        """A classifier without any class, of the backbone that configuration layers name.

        Its weights are those it comes with. Raises ConfigError where it has none, or another part
        would have to be trained first; `without_adapter` as in `load`.
        """
        registry = build_registry()[0] if registry is None else registry
        plain = [dict(layer) for layer in layers]
        return _of_recipe(recipe.of_names(registry, plain, without_adapter), registry)

    @classmethod
    @one_at_a_time
    def load(
        cls,
        path: str | Path,
        registry: Registry | None = None,
        without_adapter: bool = False,
    ) -> "Classifier":
        """A classifier from its file, or one without any class from a run folder.

        It applies no adapter: a run that has one is refused, unless `without_adapter` asks for the
        trained network as it is. Raises ConfigError for that; OutputError, naming the file, where
        it is damaged, of another version or no classifier; UnknownComponentError where a plugin it
        needs is not installed.
        """
        path = Path(path)
        registry = build_registry()[0] if registry is None else registry
        if path.is_dir():
            made = recipe.of_run(path, registry, without_adapter)
            blank = _of_recipe(made, registry)
            return evolve(blank, calibrations=recipe.calibrations_of(path))
        content, digest = document.read(path, registry)
        try:
            return evolve(_of_content(content, registry), seen={path.resolve(): digest})
        except FewshotError as error:
            raise OutputError(f"{path}: {error}") from error
        except document.UNREADABLE as error:
            raise OutputError(f"{path}: not a classifier file: {error!r}") from error

    def save(self, path: str | Path, new: bool = False) -> None:
        """Write everything to one file, atomically; the same classifier gives the same bytes.

        A file that this one was loaded from, or saved to, must be as it was then: what another
        program has enrolled meanwhile would be lost (`update` takes a step from what is there).
        Raises OutputError for that, where it cannot be written and, if it is to be `new`, where
        there is one; ConfigError for a classifier whose parts have no names.
        """
        path = Path(path)
        with archive.locked(path):
            there, known = archive.stated(path), self._seen.get(path.resolve())
            if known is not None and there not in (None, known):
                raise OutputError(
                    f"{path}: another program has changed it since it was read: load it again"
                )
            self._write(path, new)

    def update(
        self,
        path: str | Path,
        step: Callable[["Classifier"], "Classifier"],
        registry: Registry | None = None,
    ) -> "Classifier":
        """Take a step from what the classifier's file holds now, and save what comes of it.

        That is this one, or what another program has made of the file since; nobody changes it
        between. Raises what `load` and `save` do, and what the step does: the file is as it was.
        """
        path = Path(path)
        with archive.locked(path):
            after = step(self.current(path, registry))
            after._write(path)
        return after

    def current(self, path: str | Path, registry: Registry | None = None) -> "Classifier":
        """This one, if its file holds it still, else what that holds now, with the same engine."""
        path = Path(path)
        if archive.stated(path) == self._seen.get(path.resolve()):
            return self
        now = Classifier.load(path, registry)
        return evolve(now, engine=self.engine.name, reading=self.reading)

    def _write(self, path: Path, new: bool = False) -> None:
        if self.recipe is None:
            raise ConfigError(
                "this classifier was made of parts without names and cannot be saved: name its "
                "network, or train with fewshot.experiments.run and load the run folder"
            )
        content = document.Content(
            self.recipe, self.support, self.classes, self._calibrations_in_use(), self.threshold,
            self.text,
        )  # fmt: skip
        self._seen[path.resolve()] = document.write(path, content, new)

    # ------------------------------------------------------------------------ the support

    def enrol(self, images: Mapping[Any, Any]) -> "Classifier":
        """With more images of some classes, new or known: paths, Pillow images or arrays of each.

        An image that its class has already is passed over. Raises DataError for an image that
        cannot be used, a name that no class may have and, unless the head reads names, no image.
        A name that is a number or a path is that as text; in Unicode's composed form (NFC) and
        without spaces around it, as in folders.
        """
        images = by_name(images)
        classes, support = list(self.classes), self.support
        added: list[tuple[int, Picture, str]] = []
        for key, given in images.items():
            name = class_name(str(key))
            of_class = or_raise(decode_images(listed(given), self.shape, self.reading))
            if not of_class and self.text is None:
                raise DataError(
                    f"class '{name}' has no image, and the head reads no names: --head tip-adapter "
                    "does, of a backbone with text"
                )
            require_names([name])
            if name not in classes:
                classes.append(name)
            label = classes.index(name)
            there = {support.sha256[i] for i in np.flatnonzero(support.labels == label)}
            new = {image.sha256(): image for image in of_class if image.sha256() not in there}
            added += [(label, image, sha256) for sha256, image in new.items()]
        if added:
            labels, pictures, sha256s = zip(*added, strict=True)
            rows = np.stack([each.image for each in pictures])
            names = [Path(each.name).name for each in pictures]
            more = Support(rows, self._embeddings(rows), np.array(labels), names, sha256s)
            if count := self.embedder.support_crops:
                crops = self._embeddings(corners(rows)).reshape(len(rows), count, -1)
                more = evolve(more, crops=crops)
            support = support.joined(more)
        elif len(classes) == len(self.classes):
            return self
        return self._with(classes, support)

    def joined(self, other: "Classifier", start: int = 0) -> "Classifier":
        """With the support images of one of the same network, from row `start` on.

        An image that its class has already is passed over, as in `enrol`; classes without any
        come along where names are read. Raises OutputError where the networks are two.
        """
        if not document.same_network(self.recipe, other.recipe):
            raise OutputError("it has another network now: enrol again")
        mine, theirs = (self.classes, self.support), (other.classes, other.support)
        classes, support = with_others(*mine, *theirs, start)
        if self.text is not None:
            classes += [name for name in other.classes if name not in classes]
        if len(support) == len(self.support) and len(classes) == len(self.classes):
            return self
        return self._with(classes, support)

    def remove(self, name: object) -> "Classifier":
        """Without a class. Raises DataError where there is none of that name."""
        label = self._label(name)
        labels = self.support.labels
        rest = self.support.only(labels != label, labels - (labels > label))
        classes = [other for i, other in enumerate(self.classes) if i != label]
        return self._with(classes, rest)

    def remove_image(self, name: object, sha256: str) -> "Classifier":
        """Without one support image of a class; without its last one the class goes too.

        Raises DataError where the class has no such image.
        """
        labels = self.support.labels
        of_class = labels == self._label(name)
        same = of_class & (np.array(self.support.sha256) == sha256)
        if not same.any():
            raise DataError(f"class '{name}' has no image with the SHA-256 {sha256}")
        if same.sum() == of_class.sum():
            return self.remove(name)
        return self._with(self.classes, self.support.only(~same, labels))

    def _with(self, classes: Sequence[str], support: Support) -> "Classifier":
        """With other classes, whose calibration is another one too, unless it is a run's."""
        kept = tuple(each for each in self.calibrations if each.origin != "enrolled")
        text = self.text
        if text is not None:
            new = [name for name in classes if name not in self.classes]
            rows = np.concatenate([text, self.embedder.of_names(new)]) if new else text
            known = [*self.classes, *new]
            text = rows[[known.index(name) for name in classes]]
        return evolve(self, classes=classes, support=support, calibrations=kept, text=text)

    def _label(self, name: object) -> int:
        text = class_name(str(name))
        if text not in self.classes:
            raise DataError(f"no class '{text}': {choose_from(text, self.classes)}")
        return self.classes.index(text)

    def counts(self) -> dict[str, int]:
        """How many support images every class has."""
        found = np.bincount(self.support.labels, minlength=len(self.classes))
        return dict(zip(self.classes, found.tolist(), strict=True))

    @one_at_a_time
    def calibration(self) -> Calibration | None:
        """The calibration for as many images as the classes have; with `threshold`, where given.

        Without one from a run it is found on the enrolled classes, if there are three with two
        images or more; else None.
        """
        found = for_counts(self._calibrations_in_use(), list(self.counts().values()))
        if found is None or self.threshold is None:
            return found
        return evolve(found, threshold=self.threshold)

    @one_at_a_time
    def _calibrations_in_use(self) -> tuple[Calibration, ...]:
        return self.calibrations or self._of_enrolled

    @cached_property
    def _of_enrolled(self) -> tuple[Calibration, ...]:
        """Found once, where it is first needed: images may be enrolled one by one."""
        rows, crops = self.support.with_crops()
        labels = self.support.labels
        found = from_enrolled(rows, labels, self.head, self.metric, self.text, crops)
        return () if found is None else (found,)

    # ------------------------------------------------------------------------ the answers

    def predict(self, images: Any, nearest: int = 3, together: bool = False) -> list[Prediction]:
        """An answer for every image: paths, Pillow images, arrays (h, w, c) or one (b, h, w, c).

        The same answer, but for rounding, whatever other images are asked about. `nearest`: how
        many support images are told. `together`: the images are one task, all asked at once, as a
        head that looks at queries together wants it; it is refused otherwise, with a ConfigError.
        Raises DataError for an image that cannot be used.
        """
        return or_raise(list(self.stream(listed(images), nearest, together)))

    def stream(
        self, images: Iterable[Any], nearest: int = 3, together: bool = False
    ) -> Iterator[Prediction | DataError]:
        """`predict` for any number of images, read a few at a time, or all of them `together`.

        An image that cannot be used gives its DataError in its place.
        """
        self._require_classes()
        self.require_alone(together)
        return self._stream(iter(images), nearest, together)

    def _stream(
        self, waiting: Iterator[Any], nearest: int, together: bool
    ) -> Iterator[Prediction | DataError]:
        at_once, most = _FIRST, batch_size(self.shape, _BATCH)
        while batch := list(islice(waiting, None if together else at_once)):
            at_once = min(2 * at_once, most)
            read = decode_images(batch, self.shape, self.reading)
            good = [each for each in read if isinstance(each, Picture)]
            found = iter(self._predict(good, nearest))
            yield from (next(found) if isinstance(each, Picture) else each for each in read)

    @one_at_a_time
    def scores(self, images: NDArray[np.uint8], together: bool = False) -> NDArray[np.float32]:
        """The head's scores (b, n_way) of images (b, h, w, c) uint8; higher is better.

        `together`, and ConfigError, as in `predict`.
        """
        to = self._require_classes()
        self.require_alone(together)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(f"images must be (b, h, w, c) uint8, not {images.shape} {images.dtype}")
        answers = [np.empty((0, len(self.classes)), np.float32)]
        at_once = max(1, len(images)) if together else _BATCH
        for start in range(0, len(images), at_once):
            query = mx.array(self._embeddings(images[start : start + at_once]))
            with evaluating(self.head.module, self.metric.fn):
                found = self.head.scores(to.state, query, self.metric)
            answers.append(np.array(found))
        return np.concatenate(answers)

    @one_at_a_time
    def _predict(self, images: list[Picture], nearest: int) -> list[Prediction]:
        if not images:
            return []
        self._require_classes()
        query = self._embeddings(np.stack([image.image for image in images]))
        scores, logits, distances, to_each = self._compare(query, nearest > 0)
        best, least = scores.argmax(axis=1), distances.min(axis=1)
        order = np.argsort(to_each, axis=1, kind="stable")[:, :nearest]
        of, calibration = self.support, self._calibration
        limit = self.threshold if calibration is None else calibration.threshold
        sure = None if calibration is None else softmax(logits / calibration.temperature, axis=1)
        return [
            Prediction(
                image=image.name,
                label=None if limit is not None and least[i] > limit else self.classes[best[i]],
                best=self.classes[best[i]],
                score=float(scores[i, best[i]]),
                confidence=None if sure is None else float(sure[i, best[i]]),
                distance=float(least[i]),
                nearest=of.neighbours(self.classes, order[i], to_each[i]),
                pixels=image.image,
            )
            for i, image in enumerate(images)
        ]

    @one_at_a_time
    def ready(self) -> str:
        """Have the engine made ahead of the first image; why "auto" fell back to MLX, or "".

        Raises ConfigError where the engine "onnx" is not possible.
        """
        self.engine.of(self.embedder, self.shape)
        return self.engine.hint

    @one_at_a_time
    def _embeddings(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of images (b, h, w, c) of the network's size."""
        return self.engine.embeddings(self.embedder, self.shape, images)

    # Once for a support: a prototype's score costs the same however many images a class has.

    @cached_property
    def _compare(self) -> Compare:
        return comparison(
            self._fitted, self.support.embeddings, self.head, self.metric, len(self.classes)
        )

    @cached_property
    def _calibration(self) -> Calibration | None:
        return self.calibration()

    @cached_property
    def _fitted(self) -> Fitted:
        (support, crops), n_way = self.support.with_crops(), len(self.classes)
        labels = labels_with_crops(self.support.labels, crops.shape[1])
        if self.text is not None:
            support = np.concatenate([self.text, support])
            labels = np.concatenate([np.arange(n_way), labels])
        to = fitted(mx.array(support), mx.array(labels), self.head, self.metric, n_way)
        mx.eval(to.state, to.points, to.labels)
        return to

    @one_at_a_time
    def _require_classes(self) -> Fitted:
        if not self.classes:
            raise DataError("no class is enrolled yet: fewshot enrol FILE FOLDER")
        return self._fitted

    def require_alone(self, together: bool = False) -> None:
        """Raise ConfigError where the head looks at queries together and is not asked to."""
        if not together:
            require_alone(self.head, "" if self.recipe is None else self.recipe.head.name)


OF_NAMES = {"head": {"name": "tip-adapter"}}  # below other layers, where classes have no image


def _blank(embedder: Embedder, metric: Metric, head: Head, shape: Shape) -> Classifier:
    """Without any class."""
    centre = copied(embedder.centre)
    embedder = evolve(embedder, backbone=folded(embedder.backbone), centre=centre)
    # Another thread than the one in which an array was begun cannot compute it.
    mx.eval(
        [p for p in (embedder.backbone, centre, metric.fn, head.module) if isinstance(p, nn.Module)]
    )
    support = no_support(shape, embedder.backbone.embedding_dim, embedder.support_crops)
    text = support.embeddings if head.names else None
    return Classifier(embedder, metric, head, support, shape, text=text)


def _of_recipe(made: Recipe, registry: Registry) -> Classifier:
    embedder, metric, head = recipe.remade(made, registry)
    blank = _blank(embedder, metric, head, made.shape)
    return evolve(blank, recipe=made, reading=made.reading)


def _of_content(content: document.Content, registry: Registry) -> Classifier:
    blank = _of_recipe(content.recipe, registry)
    document.require_fits(content, blank.support, blank.text, blank.embedder)
    return evolve(blank, **asdict(content, recurse=False))
