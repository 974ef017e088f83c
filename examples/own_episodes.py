"""Evaluate on episodes of one's own: any iterable of `Episode` over a data set, any labels."""

import numpy as np

import fewshot as fs

fs.prepare()

rng = np.random.default_rng(0)
colours = {"rust": (160, 60, 30), "moss": (70, 110, 40), "slate": (80, 90, 120)}
names = [name for name in colours for _ in range(8)]
base = np.array([colours[name] for name in names])[:, None, None, :]
images = np.clip(base + rng.normal(0, 50, (len(names), 16, 16, 3)), 0, 255).astype(np.uint8)
data = fs.from_arrays(images, names)

# Two support images of each class (0, 1, 8, 9, …), all others are queries.
support = [i for i in range(len(names)) if i % 8 < 2]
query = [i for i in range(len(names)) if i % 8 >= 2]
task = fs.Episode.of(support, [names[i] for i in support], query, [names[i] for i in query])

embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=8), input_shape=(16, 16, 3)))
pixels = fs.raw_pixels(data, np.arange(len(names)))
for what, embeddings in (("untrained conv4", fs.embed(embedder, data)), ("raw pixels", pixels)):
    result = fs.evaluate(embeddings, [task], fs.nearest_support(), fs.euclidean(), data.classes)
    print(f"{what}: {result.accuracy:.1%}", dict(result.per_class))
