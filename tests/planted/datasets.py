"""Data sets with a fault, and odd ones without."""

import random
import threading
import time

import numpy as np
from attrs import evolve, frozen

from fewshot import ClassSplit, from_arrays
from planted import Collection

CASES = Collection("dataset")


@frozen(eq=False)
class Data:
    """Five classes of four images, a sound data set, and what each fault changes of it."""

    labels: object = np.repeat(np.arange(5), 4)
    classes: object = ("a", "b", "c", "d", "e")
    groups: object = None
    split: object = None
    names: object = None
    item: object = None
    load: object = None
    role: object = None
    parents: object = None
    source: object = None

    def __getitem__(self, index):
        return (self.item or picture)(index)


def picture(index, height=6):
    if not 0 <= index < 20:
        raise IndexError(index)
    return np.random.default_rng(int(index)).integers(0, 256, (height, 5, 3), np.uint8)


def data(**changes):
    return evolve(Data(), **changes)


@CASES.breaks("made")
def a_list_of_images(_):
    return [picture(i) for i in range(20)]


@CASES.breaks("made")
def empty(_):
    return data(labels=np.empty(0, np.int64), classes=())


@CASES.breaks("labels")
def a_list_of_labels(_):
    return data(labels=[0, 1, 2, 3, 4] * 4)


@CASES.breaks("labels")
def labels_as_floats(_):
    return data(labels=Data().labels.astype(np.float32))


@CASES.breaks("labels are classes")
def labels_from_one(_):
    return data(labels=Data().labels + 1)


@CASES.breaks("classes")
def classes_by_number(_):
    return data(classes=(0, 1, 2, 3, 4))


@CASES.breaks("classes")
def two_classes_of_one_name(_):
    return data(classes=("a", "b", "c", "d", "a"))


@CASES.breaks("every class has images")
def a_class_without_images(_):
    return data(classes=(*Data().classes, "f"))


@CASES.breaks("groups")
def groups_of_another_length(_):
    return data(groups=np.arange(19))


@CASES.breaks("groups")
def groups_by_name(_):
    return data(groups=np.array(["ann", "bob"] * 10))


@CASES.breaks("an image for every label")
def fewer_images_than_labels(_):
    return data(labels=np.repeat(np.arange(5), 5))


@CASES.breaks("images")
def floats_in_0_to_1(_):
    return data(item=lambda i: (picture(i) / 255).astype(np.float32))


@CASES.breaks("images")
def grey_without_an_axis(_):
    return data(item=lambda i: picture(i)[..., 0])


@CASES.breaks("one size")
def images_of_different_size(_):
    return data(item=lambda i: picture(i, height=6 + (i == 19)))


@CASES.breaks("images differ")
def the_last_image_for_all(_):
    readers = [lambda: picture(i) for i in range(20)]  # noqa: B023
    return data(item=lambda i: readers[i]())


@CASES.breaks("read again")
def drawn_anew_each_time(_):
    return data(item=lambda i: np.random.default_rng().integers(0, 256, (6, 5, 3), np.uint8))


@CASES.breaks("read again")
def whatever_is_next(_):
    state = iter(range(10**6))
    return data(item=lambda i: picture(next(state) % 20))


@CASES.breaks("labels stay")
def labels_in_an_order_by_chance(_):
    return data(labels=np.random.default_rng().permutation(Data().labels))


class Moving(Data):
    """Removes what it has read."""

    def __getitem__(self, index):
        self.labels[index] = (self.labels[index] + 1) % 5
        return picture(index)


@CASES.breaks("labels stay")
def labels_that_move(_):
    return Moving(labels=Data().labels.copy())


@CASES.breaks("threads")
def one_file_position_for_all(_):
    at = threading.local if False else [0]

    def item(index):
        at[0] = index
        time.sleep(0.001)
        return picture(at[0])

    return data(item=item)


@CASES.breaks("global random numbers")
def seeds_python(_):
    def item(index):
        random.seed(index)
        return picture(index)

    return data(item=item)


@CASES.breaks("split")
def a_split_of_unknown_classes(_):
    return data(split=ClassSplit(["a", "b"], [], ["z"]))


@CASES.breaks("split")
def a_split_as_a_dictionary(_):
    return data(split={"train": ["a", "b"], "test": ["c"]})


@CASES.breaks("role")
def roles_as_a_list(_):
    return data(role=["support", "query"] * 10)


@CASES.breaks("role")
def roles_by_number(_):
    return data(role=np.arange(20) % 3)


@CASES.breaks("role")
def a_role_too_many(_):
    return data(role=np.array(["support", "query", "both"] * 7))


@CASES.breaks("role")
def probes_and_enrolment(_):
    return data(role=np.array(["enrolment", "probe"] * 10))


@CASES.breaks("source")
def sources_by_number(_):
    return data(source=np.arange(20) % 2)


@CASES.breaks("source")
def one_source_for_all(_):
    return data(source=np.array(["anna"]))


@CASES.breaks("names")
def two_images_of_one_name(_):
    return data(names=["1.png", "2.png", "3.png", "4.png"] * 5)


@CASES.breaks("names")
def too_few_names(_):
    return data(names=["a/1.png"])


@CASES.breaks("load")
def loaded_in_another_order(_):
    return data(load=lambda progress: np.stack([picture(i) for i in reversed(range(20))]))


# ------------------------------------------------------------------------------ odd and sound


@CASES.breaks("parents")
def a_parent_of_every_image(_):
    return data(parents=["x", "y"] * 10)


@CASES.breaks("parents")
def parents_by_number(_):
    return data(parents=np.arange(5))


@CASES.sound
def plain(_):
    return data()


@CASES.sound
def with_everything(_):
    return data(
        groups=np.arange(20) // 2, split=ClassSplit(["a", "b"], ["c"], ["d", "e"]),
        names=[f"{i}.png" for i in range(20)],
        role=np.array(["support", "query", "both", "query"] * 5),
        parents=("x", "y", "x", "y", "x"),
        source=np.array(["anna", "ben"] * 10),
        load=lambda progress: np.stack([picture(i) for i in range(20)]),
    )  # fmt: skip


@CASES.sound
def one_image(_):
    return data(labels=np.zeros(1, np.int64), classes=("a",))


@CASES.sound
def arrays_with_classes_of_many_sizes(_):
    images = np.stack([picture(i) for i in range(20)])
    return from_arrays(
        images, ["a"] * 15 + ["b"] * 4 + ["c"], groups=[2**60 + i for i in range(20)]
    )
