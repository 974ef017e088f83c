"""Train for prototypes, then name new classes from three images of each: no training for those."""

import numpy as np

import fewshot as fs

fs.prepare()

# Blots of 24 colours on a noisy ground: 24 images of each.
rng = np.random.default_rng(0)
hues = rng.uniform(40, 215, (24, 3))
labels = np.repeat(np.arange(24), 24)
rows, columns = np.mgrid[:24, :24]
centres = rng.uniform(6, 18, (len(labels), 2, 1, 1))
inside = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < 30
images = np.where(inside[..., None], hues[labels][:, None, None], 128)
images = np.clip(images + rng.normal(0, 45, images.shape), 0, 255).astype(np.uint8)

known, new = labels < 18, labels >= 18
data = fs.from_arrays(images[known], labels[known])
embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=16), input_shape=(24, 24, 3)))
metric, head = fs.sqeuclidean(), fs.nearest_prototype()
fs.fit(
    embedder,
    data,
    fs.episodes(fs.EpisodesOptions(n_way=6, k_shot=3, n_query=5), data.labels),
    fs.prototypical(fs.PrototypicalOptions(temperature=0.1)),
    metric,
    head,
    fs.TrainingOptions(steps=60, validate_every=20),
    on_record=print,
)

few = {f"colour {c}": images[labels == c][:3] for c in range(18, 24)}
classifier = fs.Classifier.of(embedder, few, head, metric)
asked = np.concatenate([images[labels == c][3:] for c in range(18, 24)])
named = [answer.label for answer in classifier.predict(asked)]
right = np.repeat([f"colour {c}" for c in range(18, 24)], 21)
print(f"6 new classes, 3 images of each: {np.mean(np.array(named) == right):.1%}")
