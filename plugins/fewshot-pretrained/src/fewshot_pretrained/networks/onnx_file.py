"""Any network in an ONNX file as a frozen backbone, through ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from fewshot import Component, ConfigError, DataError, cores, option

from .published import Shape, implied

_HUB = "hf://"


@frozen
class OnnxOptions:
    """Options of a network in an ONNX file."""

    path: str = option("", "the .onnx file, or hf://OWNER/REPOSITORY/FILE.onnx")
    input: str = option("", "the input that takes the images; else the only one")
    output: str = option("", "the output to take; else the first with two axes, else the first")
    layout: Literal["auto", "nchw", "nhwc"] = option(
        "auto", "where the input has its channels; auto: where it has 1 or 3, else nchw"
    )
    pool: Literal["auto", "mean", "first"] = option(
        "auto",
        "of an output for every position: their mean or the first, a class token; auto: the first "
        "of a row of tokens, the mean of a map",
    )


@frozen(eq=False)
class _Runner:
    """A file that ONNX Runtime has ready, and how it is asked."""

    file: mx.array
    session: Any
    input: Any
    output: str
    channels_last: bool
    pool: str

    @property
    def shape(self) -> list[Any]:
        """(batch, h, w, c) of the input: numbers where these are fixed, else names or None."""
        shape = list(self.input.shape)
        return shape if self.channels_last else [shape[0], *shape[2:], shape[1]]

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(b, h, w, c) -> (b, d)."""
        batch, _, _, channels = self.shape
        if channels == 3 and images.shape[-1] == 1:
            images = np.repeat(images, 3, axis=-1)
        if not self.channels_last:
            images = images.transpose(0, 3, 1, 2)
        size = batch if isinstance(batch, int) else len(images)
        blocks = [self._block(images[i : i + size], size) for i in range(0, len(images), size)]
        return np.concatenate(blocks)

    def _block(self, images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """At most as many images as the file takes at once; for fewer the last is repeated."""
        count = len(images)
        images = np.concatenate([images, *[images[-1:]] * (size - count)])
        given = {self.input.name: _as(images, self.input.type)}
        (out,) = self.session.run([self.output], given)
        out = out[:count].astype(np.float32)
        if out.ndim == 2:
            return out
        first = self.pool == "first" or (self.pool == "auto" and out.ndim == 3)
        if out.ndim == 3:  # (b, tokens, d)
            return out[:, 0] if first else out.mean(axis=1)
        if self.channels_last:
            out = np.moveaxis(out, -1, 1)
        flat = out.reshape(*out.shape[:2], -1)
        return flat[..., 0] if first else flat.mean(axis=-1)


_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


def _as(images: NDArray[np.float32], kind: str) -> NDArray[Any]:
    dtype = _TYPES[kind]
    if dtype is np.uint8:
        images = np.clip(np.round(images), 0, 255)
    return np.ascontiguousarray(images, dtype)


class OnnxBackbone(nn.Module):
    """(b, h, w, c) -> (b, d) by what an ONNX file computes; without a gradient, so frozen.

    `file`: the bytes of the file, a parameter: a run folder or a classifier file has it whole.
    """

    outside_mlx = True

    def __init__(self, file: mx.array, options: OnnxOptions, input_shape: Shape) -> None:
        super().__init__()
        self.file = file
        self.freeze()
        self._options, self._input_shape = options, input_shape
        self._runner = _runner(file, options, input_shape)
        self.embedding_dim = int(self._runner(np.zeros((1, *input_shape), np.float32)).shape[1])

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch; ConfigError where MLX only traces it."""
        if self._runner.file is not self.file:  # loaded anew
            same = self._runner.file.shape == self.file.shape
            if same and mx.array_equal(self._runner.file, self.file):
                self._runner = evolve(self._runner, file=self.file)
            else:
                self._runner = _runner(self.file, self._options, self._input_shape)
        try:
            pixels = np.array(images)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                "backbone 'onnx' runs outside of MLX, which cannot trace it: it is neither "
                "compiled (training on a GPU) nor exported"
            ) from error
        return mx.array(self._runner(pixels))


def _runner(file: mx.array, options: OnnxOptions, shape: Shape) -> _Runner:
    """Raises ConfigError where file, options and images do not fit together."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "backbone 'onnx' needs the extra `onnx`: pip install 'fewshot-pretrained[onnx]'"
        ) from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = cores()
    settings.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            bytes(np.array(file)), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of types of its own, by what is wrong
        line = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{options.path}: ONNX Runtime cannot run it (weights in a second file are not read): "
            f"{line}"
        ) from error
    takes = _input(session, options)
    channels_last = options.layout == "nhwc" or (
        options.layout == "auto" and takes.shape[1] not in (1, 3) and takes.shape[3] in (1, 3)
    )
    output = _output(session, options)
    runner = _Runner(file, session, takes, output, channels_last, options.pool)
    _require_fit(runner, options.path, shape)
    return runner


def _input(session: Any, options: OnnxOptions) -> Any:
    there = {each.name: each for each in session.get_inputs()}
    listed = ", ".join(there)
    if options.input and options.input not in there:
        raise ConfigError(f"{options.path} has no input '{options.input}': it has {listed}")
    if not options.input and len(there) != 1:
        raise ConfigError(f"{options.path} wants {listed}: --set backbone.input=NAME says which")
    if len(there) > 1:
        raise ConfigError(f"{options.path} wants {listed}, and only images can be given")
    takes = there[options.input or listed]
    if len(takes.shape) != 4 or takes.type not in _TYPES:
        raise ConfigError(
            f"{options.path}: its input '{takes.name}' is {takes.type} {takes.shape}: images are "
            f"(batch, 3, h, w) or (batch, h, w, 3) of {', '.join(_TYPES)}"
        )
    return takes


def _output(session: Any, options: OnnxOptions) -> str:
    there = {each.name: len(each.shape or ()) for each in session.get_outputs()}
    fit = [name for name, axes in there.items() if 2 <= axes <= 4]
    if (options.output and options.output not in fit) or not fit:
        listed = ", ".join(f"{name} ({axes} axes)" for name, axes in there.items())
        raise ConfigError(f"{options.path} has no output '{options.output}' to take: {listed}")
    flat = [name for name in fit if there[name] == 2]
    return options.output or [*flat, *fit][0]


def _require_fit(runner: _Runner, path: str, shape: Shape) -> None:
    _, *sides, channels = runner.shape
    if isinstance(channels, int) and channels != shape[-1] and (channels, shape[-1]) != (3, 1):
        raise ConfigError(f"{path} takes images of {channels} channels, these have {shape[-1]}")
    for due, side in zip(sides, shape[:2], strict=True):
        if isinstance(due, int) and due != side:
            raise ConfigError(
                f"{path} takes images of {sides[0]}x{sides[1]}, these are {shape[0]}x{shape[1]}: "
                f"--set dataset.size={due}"
            )


# ------------------------------------------------------------------------------ the file


def _content(path: str) -> mx.array:
    if not path:
        raise ConfigError("backbone 'onnx' wants a file: --set backbone.path=model.onnx")
    file = _of_hub(path) if path.startswith(_HUB) else Path(path).expanduser()
    try:
        return mx.array(np.frombuffer(file.read_bytes(), np.uint8))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _of_hub(address: str) -> Path:
    """Where huggingface_hub keeps hf://OWNER/REPOSITORY/FILE, which it brings."""
    owner, _, rest = address.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise ConfigError(f"{address} is not hf://OWNER/REPOSITORY/FILE.onnx")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ConfigError(
            f"{address} needs the extra `hub`: pip install 'fewshot-pretrained[hub]'"
        ) from error
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:  # of its own types, and those of what it asks the network with
        line = " ".join(str(error).split())[:200]
        raise DataError(f"{address}: cannot be had: {line}") from error


def onnx(
    options: OnnxOptions, input_shape: Shape, saved: Mapping[str, Any] | None = None
) -> OnnxBackbone:
    """What an ONNX file computes of images (batch, 3, h, w) or (batch, h, w, 3), frozen.

    Images are scaled as the configuration says, by ImageNet's mean and deviation unless told:
    `--set preprocess=…` for another file, 0 and 1/255 for one that takes levels from 0 to 255. The
    file is saved whole with a run or classifier, and not looked for again.
    """
    file = (saved or {}).get("file")
    return OnnxBackbone(
        _content(options.path) if file is None else mx.array(file), options, input_shape
    )


def _there_already(made: OnnxBackbone, options: OnnxOptions) -> None:
    """The factory has read the file."""


COMPONENTS = (
    Component(
        "onnx",
        onnx,
        OnnxOptions,
        "any network in an ONNX file, frozen, by ONNX Runtime",
        initialise=_there_already,
        implies=implied(
            224, "bicubic", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        ),
    ),
)
