"""Observers with a fault, and odd ones without."""

import json
import random

from fewshot import Observer
from planted import Collection

CASES = Collection("observer")


@CASES.breaks("made")
def a_bare_function(_):
    return print


@CASES.breaks("made")
def no_function(_):
    return Observer(record="print")


@CASES.breaks("any figures")
def a_score_in_every_record(_):
    return Observer(record=lambda figures: round(figures.get("score", 0.0), 3))


@CASES.breaks("any figures")
def every_figure_a_number(_):
    return Observer(record=lambda figures: [f"{value:.3f}" for value in figures.values()])


@CASES.breaks("ended early")
def results_in_any_case(_):
    return Observer(end=lambda results: len(results["k_shot"]))


@CASES.breaks("ended early")
def a_record_in_any_case(_):
    seen = []
    return Observer(record=seen.append, end=lambda results: seen[-1]["loss"])


@CASES.breaks("again")
def one_run_alone(_):
    folders = []

    def start(folder, config):
        folders.append(folder)
        (folders[0] / "started").write_text("yes")

    return Observer(start=start)


@CASES.breaks("the run folder")
def a_configuration_of_its_own(_):
    return Observer(start=lambda folder, config: (folder / "config.toml").write_text(str(config)))


@CASES.breaks("the run folder")
def tidies_up(_):
    return Observer(start=lambda folder, config: [file.unlink() for file in folder.iterdir()])


@CASES.breaks("global random numbers")
def now_and_then(_):
    return Observer(record=lambda figures: random.random() < 0.1)


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def deaf(_):
    return Observer()


@CASES.sound
def lines_of_json(_):
    files = []

    def record(figures):
        files[-1].write(json.dumps(figures) + "\n")

    return Observer(
        start=lambda folder, config: files.append((folder / "told.jsonl").open("w")),
        record=record,
        end=lambda results: files.pop().close(),
    )
