"""Train on a folder of one's own photos, one folder a class; tell apart classes never seen."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

import fewshot as fs

fs.prepare()
os.environ.setdefault("FEWSHOT_CACHE", "")  # these drawings need not be kept decoded


def draw_photos(folder: Path) -> None:
    """Stand-ins for photos: polygons of 3 to 14 corners, 24 of each, anywhere and turned."""
    rng = np.random.default_rng(0)
    for corners in range(3, 15):
        place = folder / f"{corners} corners"
        place.mkdir(parents=True)
        for i in range(24):
            image = Image.new("RGB", (64, 64), tuple(rng.integers(120, 256, 3).tolist()))
            x, y = rng.integers(28, 36, 2).tolist()
            turn, colour = float(rng.uniform(0, 360)), tuple(rng.integers(0, 100, 3).tolist())
            draw = ImageDraw.Draw(image)
            draw.regular_polygon((x, y, 26), corners, turn, fill=colour)
            image.save(place / f"{i}.jpg")


with TemporaryDirectory() as place:
    draw_photos(Path(place) / "photos")
    folder = fs.image_folder(fs.ImageFolderOptions(path=f"{place}/photos", size=32))
    data = fs.decode(folder)

# Polygons of 3, 6, 9 and 12 corners are kept back for the test.
split = fs.split_classes(data, fs.SplitOptions(test=("3 corners", "6 corners", "9 corners")))
trained_on = np.isin(np.array(data.classes)[data.labels], split.train)

embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=16), input_shape=(32, 32, 3)))
metric, head = fs.euclidean(), fs.nearest_support()
pairs = fs.all_pairs(fs.BalancedOptions(classes=8), np.where(trained_on, data.labels, -1))
fs.fit(
    embedder,
    data,
    pairs,
    fs.contrastive(),
    metric,
    options=fs.TrainingOptions(steps=60, validate_every=20),
    on_record=print,
)

options = fs.EvaluationOptions(k_shot=(1, 5), n_way=(3,), episodes=100, n_query=10)
embeddings = fs.embed(embedder, data)
for setting, tasks in fs.k_shot_episodes(data, split, options).items():
    result = fs.evaluate(embeddings, tasks, head, metric, data.classes)
    print(
        f"3-way {setting.k_shot}-shot on unseen classes: {result.accuracy:.1%}, 95 % {result.ci95}"
    )
