"""A data set that raises for one of its images."""

import numpy as np

from fewshot import Component, hookimpl


class TornImages:
    classes = ("a", "b", "c", "d", "e", "f")
    labels = np.repeat(np.arange(6), 12)
    groups = None

    def __getitem__(self, index):
        if index == 40:
            raise OSError("image 40 is torn")
        return np.zeros((16, 16, 3), np.uint8)


@hookimpl
def fewshot_datasets():
    return [Component("torn-images", lambda options: TornImages())]
