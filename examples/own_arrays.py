"""Train conv4 on episodes drawn from one's own arrays, test it on classes it has never seen."""

import numpy as np

import fewshot as fs

fs.prepare()  # a fast BLAS on Linux, before anything imports MLX

# Any images (n, h, w, c) uint8 with labels will do; here: stripes of 20 directions, in noise.
rng = np.random.default_rng(0)
labels = np.repeat(np.arange(20), 30)
rows, columns = np.mgrid[:32, :32] / 32
angle = labels[:, None, None] * np.pi / 20
phase = rng.uniform(0, 2 * np.pi, (len(labels), 1, 1))
stripes = np.sin(30 * (columns * np.cos(angle) + rows * np.sin(angle)) + phase)
images = np.clip(128 + 30 * stripes + rng.normal(0, 60, stripes.shape), 0, 255).astype(np.uint8)

data = fs.from_arrays(images[..., None], labels)
seen = np.where(data.labels % 4 == 3, -1, data.labels)  # every fourth direction is kept back
unseen = np.where(data.labels % 4 == 3, data.labels, -1)

embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=16), input_shape=(32, 32, 1)))
metric, head = fs.sqeuclidean(), fs.nearest_prototype()
fs.fit(
    embedder,
    data,
    fs.episodes(fs.EpisodesOptions(n_way=5, k_shot=5, n_query=5), seen),
    fs.prototypical(fs.PrototypicalOptions(temperature=0.1)),
    metric,
    head,
    fs.TrainingOptions(steps=60, validate_every=20),
    on_record=print,
)

test = fs.episodes(fs.EpisodesOptions(n_way=5, k_shot=1, n_query=10), unseen)
tasks = test.blocks(0, 100)
result = fs.evaluate(fs.embed(embedder, data), tasks, head, metric, data.classes)
print(f"5-way 1-shot on unseen classes: {result.accuracy:.1%}, 95 % {result.ci95}")
