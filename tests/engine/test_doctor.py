"""The doctor finds this machine well, and a wrong gradient wrong."""

import re
from typing import Any

import mlx.core as mx
import pytest
from click.testing import CliRunner

from fewshot import cli
from fewshot.compute import winograd
from fewshot.compute.compiling import compiling
from fewshot.engine import doctor


def test_this_machine_computes_rightly():
    found = list(doctor.checks())
    assert len(found) == 9
    assert all(check.passed for check in found), found


IMAGES, WEIGHTS = "gradient of the images", "gradient of the weights"
FEW, MANY = "convolution", "convolution of many channels"


@pytest.mark.parametrize("factor", [1.001, -1.0])
@pytest.mark.parametrize(
    ("module", "function", "found"),
    [
        (mx, "conv2d", [FEW, f"{FEW}: {IMAGES}", f"{FEW}: {WEIGHTS}", f"{MANY}: {WEIGHTS}"]),
        (winograd, "_convolve", [MANY, f"{MANY}: {IMAGES}"]),
    ],
)
def test_a_wrong_computation_is_found(
    module: Any, function: str, found: list[str], factor: float, monkeypatch: pytest.MonkeyPatch
):
    right = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: right(*a, **k) * factor)
    assert [check.what for check in doctor.checks() if not check.passed] == found
    result = CliRunner().invoke(cli.commands, ["doctor", "--seconds", "0"])
    assert result.exit_code == 1
    assert "WRONG" in result.output
    assert "FEWSHOT_RUNTIME=stock" in result.output


def test_the_command_measures_and_says_what_is_used():
    result = CliRunner().invoke(cli.commands, ["doctor", "--seconds", "0.1"])
    assert result.exit_code == 0, result.output
    for word in (
        "images and embeddings",
        "streams",
        "blas",
        "malloc tuned",
        "convolution",
        "training, images/s",
    ):
        assert word in result.output


def test_it_says_that_nothing_is_compiled_or_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "checks", lambda: iter(()))
    result = CliRunner().invoke(cli.commands, ["doctor", "--seconds", "0"])
    assert result.exit_code == 0
    assert re.search("compiled at run time +nothing", result.output)
    with compiling():
        result = CliRunner().invoke(cli.commands, ["doctor", "--seconds", "0"])
    assert result.exit_code == 1
    assert "mx.enable_compile()" in result.output
