"""The doctor finds this machine well, and a wrong gradient wrong."""

import mlx.core as mx
import pytest
from click.testing import CliRunner

from fewshot import cli, doctor


def test_this_machine_computes_rightly():
    found = list(doctor.checks())
    assert len(found) == 6
    assert all(check.passed for check in found), found


@pytest.mark.parametrize("factor", [1.001, -1.0])
def test_a_wrong_computation_is_found(factor: float, monkeypatch: pytest.MonkeyPatch):
    right = mx.conv2d
    monkeypatch.setattr(mx, "conv2d", lambda *a, **k: right(*a, **k) * factor)
    wrong = [check.what for check in doctor.checks() if not check.passed]
    assert wrong == ["convolution", "gradient of the images", "gradient of the weights"]
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
