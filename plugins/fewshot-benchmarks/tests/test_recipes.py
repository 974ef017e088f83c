"""The recipes fit together, and the network of the quick one keeps the laws of a backbone."""

import pytest
from attrs import evolve

from fewshot import ConfigError, build_registry
from fewshot.experiments.config import resolve
from fewshot.experiments.study import study_configs
from fewshot.testing import check_backbone, check_preset

pytest.importorskip("fewshot_benchmarks", reason="the plugin fewshot-benchmarks is not installed")
pytest.importorskip("fewshot_pretrained", reason="the plugin fewshot-pretrained is not installed")

from fewshot_benchmarks.recipes import CIFAR_FS_STUDY, PRESETS
from fewshot_benchmarks.resnet9 import ResNet9Options, resnet9

REGISTRY = build_registry()[0]


# The same networks, but that making one takes no time.
NARROW = {
    "conv4": {"width": 2},
    "resnet9": {"widths": [2] * 4},
    "pretrained/resnet12": {"widths": [2] * 4},
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_keeps_the_laws(preset):
    backbone = preset.values["backbone"]
    values = {**preset.values, "backbone": {**backbone, **NARROW[backbone["name"]]}}
    check_preset(evolve(preset, values=values), REGISTRY)


def test_all_are_examined_alike_as_in_the_literature():
    for preset in PRESETS:
        config = resolve(REGISTRY, [{"preset": f"benchmarks/{preset.name}"}])
        asked = config.evaluation
        assert (asked.n_way, asked.k_shot, asked.n_query) == ((5,), (1, 5), 15)
        assert asked.episodes >= 600
        assert config.training.patience == 0


def test_the_studys_rows_are_the_presets_of_its_data_set():
    rows = dict(study_configs(CIFAR_FS_STUDY, REGISTRY))
    presets = {f"cifar-fs-{row}": row for row in rows}
    assert set(presets) <= {preset.name for preset in PRESETS}
    for name, row in presets.items():
        assert rows[row] == resolve(REGISTRY, [{"preset": f"benchmarks/{name}"}])


def test_resnet9_keeps_the_laws_of_a_backbone():
    check_backbone(resnet9, ResNet9Options(widths=(2, 2, 3, 4)))
    with pytest.raises(ConfigError, match="7x32 is under 8x8"):
        resnet9(ResNet9Options(), (7, 32, 3))
