"""On the CPU MLX compiles nothing: no g++, no library out of a folder that others share."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from fewshot.compute import compiling, streams


def test_it_is_off_wherever_a_network_is_used() -> None:
    assert streams.switch_off is compiling.switch_off
    assert not compiling.compiles()


def test_it_is_on_inside_only_and_off_again_after_an_error() -> None:
    with compiling.compiling():
        assert compiling.compiles()
    assert not compiling.compiles()
    with pytest.raises(KeyError), compiling.compiling():
        raise KeyError
    assert not compiling.compiles()


def test_it_stays_on_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "on_cpu", lambda: False)
    with compiling.compiling():
        pass
    assert compiling.compiles()
    monkeypatch.undo()
    compiling.switch_off()
    assert not compiling.compiles()


def test_functions_that_mlx_compiles_run_as_they_are() -> None:
    x = mx.array([-1.0, 0.0, 2.0])
    for function in (nn.relu, nn.relu6, nn.gelu, nn.silu, nn.leaky_relu, nn.elu):
        graph = mx.grad(lambda a, f=function: f(a).sum())(x)
        mx.eval(graph)  # in a compiled graph this would call g++
        assert graph.shape == x.shape
