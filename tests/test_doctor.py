"""The doctor finds this machine well, and a wrong gradient wrong."""

from typing import Any

import mlx.core as mx
import pytest
from click.testing import CliRunner

from fewshot import cli, doctor, winograd


def test_this_machine_computes_rightly():
    found = list(doctor.checks())
    assert len(found) == 9
    assert all(check.passed for check in found), found


ALL = ["", ": gradient of the images", ": gradient of the weights"]


@pytest.mark.parametrize("factor", [1.001, -1.0])
@pytest.mark.parametrize(
    ("module", "function", "found"),
    [
        (mx, "conv2d", [f"convolution{what}" for what in ALL]),
        (winograd, "_convolve", [f"convolution of many channels{what}" for what in ALL[:2]]),
    ],
)
def test_a_wrong_computation_is_found(
    module: Any, function: str, found: list[str], factor: float, monkeypatch: pytest.MonkeyPatch
):
    right = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: right(*a, **k) * factor)
    wrong = [check.what for check in doctor.checks() if not check.passed]
    assert set(found) <= set(wrong)
    assert not {what for what in wrong if "convolution" not in what}
    result = CliRunner().invoke(cli.commands, ["doctor", "--seconds", "0"])
    assert result.exit_code == 1
    assert "WRONG" in result.output
    assert "FEWSHOT_RUNTIME=stock" in result.output


def test_the_command_measures_and_says_what_is_used():
    result = CliRunner().invoke(cli.commands, ["doctor", "--seconds", "0.1"])
    assert result.exit_code == 0, result.output
    for word in (
        "decoded images",
        "streams",
        "blas",
        "malloc tuned",
        "convolution",
        "training, images/s",
    ):
        assert word in result.output
