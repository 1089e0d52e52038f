"""Predictions whose class ids are those of another numbering than the datasets'.

A model is then no better than chance, and nothing says why. So the other numberings that people
meet are tried: if one of them makes a good model of a bad one, that is told.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from imagenet_family.labels.classes import NUM_CLASSES, devkit_wnids, wnid_to_id
from imagenet_family.metrics.label_columns import Labels
from imagenet_family.metrics.predictions import Predictions, align

# Below this many images, chance itself reaches what is called suspicious here.
_MIN_IMAGES = 50
# So many times as many images are right in the other numbering, and at least this share of them.
_TIMES, _SHARE = 3.0, 0.05
# Of a thousand classes one in a thousand is right by chance; with twice as many a model is no use.
_CHANCE = 2 / NUM_CLASSES
_ENOUGH_FOR_CHANCE = 1000


def suspicion(labels: Labels, predictions: Predictions) -> str | None:
    """Says what seems to be wrong with the class ids of a model's predictions.

    Args:
        labels: The labels of a split.
        predictions: A model's predictions for it.

    Returns:
        Words that go on after the name of the model; None if nothing is suspicious.
    """
    n = len(labels)
    predicted = align(labels, predictions)[:, 0]
    right = _share(labels.label == predicted)
    if n < _MIN_IMAGES:
        return None
    found = {name: _share(labels.label == ids[predicted]) for name, ids in _orders().items()}
    name, best = max(found.items(), key=lambda entry: entry[1])
    if best >= max(_SHARE, _TIMES * right):
        return (
            f"has class ids that seem to be {name}: read so, {100 * best:.1f} % of the images "
            f"would be right instead of {100 * right:.1f} %. Write ids from 0 to 999 in ascending "
            "order of the wnids, or wnids"
        )
    if n >= _ENOUGH_FOR_CHANCE and right <= _CHANCE:
        return (
            f"is right on {100 * right:.2f} % of the images, no more than by chance. Are these "
            "the predictions for these images, and the class ids those of the wnids in "
            "ascending order?"
        )
    return None


def _share(right: np.ndarray) -> float:
    return float(np.count_nonzero(right)) / len(right)


@functools.cache
def _orders() -> Mapping[str, np.ndarray]:
    """Gives the class id that an id of each other numbering means, int64 (1000,); -1 for none."""
    ids = np.arange(NUM_CLASSES)
    devkit = np.array([wnid_to_id()[wnid] for wnid in devkit_wnids()])
    # Folders called 0 to 999, in the order in which a listing sorts them: 0, 1, 10, 100, …
    as_text = np.array(sorted(range(NUM_CLASSES), key=str))
    return {
        "one too high (1 to 1000)": ids - 1,
        "one too low": np.where(ids + 1 < NUM_CLASSES, ids + 1, -1),
        "the devkit's ILSVRC2012_ID, less one": devkit,
        "the devkit's ILSVRC2012_ID": np.concatenate([[-1], devkit[:-1]]),
        "positions in the ids sorted as text (0, 1, 10, 100, …)": as_text,
        "the ids of positions in the ids sorted as text": np.argsort(as_text),
    }
