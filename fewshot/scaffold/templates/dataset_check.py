"""The data set stays as it is, and has the images that it claims to have."""

import numpy as np
from fewshot.testing import check_dataset

from PLUGIN_MODULE import Options, dataset


def test_it_keeps_the_laws_of_a_dataset():
    check_dataset(dataset, Options())


def test_it_has_as_many_images_as_asked_for():
    data = dataset(Options(classes=4, per_class=3, size=8))
    assert data[0].shape == (8, 8, 3)
    assert np.bincount(data.labels).tolist() == [3, 3, 3, 3]
