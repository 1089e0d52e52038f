"""Class ids of other numberings are told, and good predictions are left alone."""

import evaluation_lib
import numpy as np
import pytest
import tensorflow_datasets

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError
from imagenet_family.evaluation import class_orders
from imagenet_family.labels import classes

LABEL = np.random.default_rng(0).integers(0, 1000, 4000)
LABELS = evaluation.Labels([f"{row}.jpg" for row in range(len(LABEL))], LABEL)
DEVKIT = {wnid: number for number, wnid in enumerate(classes.devkit_wnids())}
TO_DEVKIT = np.array([DEVKIT[wnid] for wnid in classes.wnids()])
AS_TEXT = np.array(sorted(range(1000), key=str))

# What a numbering makes of the right class ids, and what has to be said of it.
NUMBERINGS = {
    "one too high": (np.minimum(LABEL + 1, 999), "one too high"),
    "one too low": (np.maximum(LABEL - 1, 0), "one too low"),
    "devkit from 0": (TO_DEVKIT[LABEL], "ILSVRC2012_ID, less one:"),
    "devkit from 1": (np.minimum(TO_DEVKIT[LABEL] + 1, 999), "ILSVRC2012_ID:"),
    "sorted as text": (np.argsort(AS_TEXT)[LABEL], "positions in the ids sorted as text"),
    "of text positions": (AS_TEXT[LABEL], "the ids of positions in the ids sorted as text"),
}


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("accuracy", [1.0, 0.7, 0.1])
def test_other_numberings_are_told(numbering, accuracy):
    ids, expected = NUMBERINGS[numbering]
    rng = np.random.default_rng(1)
    wrong = rng.random(len(LABEL)) >= accuracy
    predicted = np.where(wrong, rng.integers(0, 1000, len(LABEL)), ids)
    said = class_orders.suspicion(LABELS, evaluation.Predictions(predicted))
    share = 100 * np.count_nonzero(predicted == ids) / len(ids)
    assert expected in said
    assert abs(float(said.partition("read so, ")[2].partition(" %")[0]) - share) < 1


@pytest.mark.parametrize("accuracy", [1.0, 0.5, 0.05, 0.01])
def test_models_of_any_accuracy_are_not_suspicious(accuracy):
    rng = np.random.default_rng(2)
    wrong = rng.random(len(LABEL)) >= accuracy
    predicted = np.where(wrong, rng.integers(0, 1000, len(LABEL)), LABEL)
    assert class_orders.suspicion(LABELS, evaluation.Predictions(predicted)) is None


def test_chance_is_told_where_there_are_enough_images():
    predicted = np.random.default_rng(3).integers(0, 1000, len(LABEL))
    said = class_orders.suspicion(LABELS, evaluation.Predictions(predicted))
    assert "no more than by chance" in said
    few = evaluation.Labels(LABELS.file_name[:200], LABEL[:200])
    assert class_orders.suspicion(few, evaluation.Predictions(predicted[:200])) is None


def test_ids_from_1_to_1000_are_an_error_that_says_so():
    with pytest.raises(EvaluationError, match="seem to go from 1 to 1000: subtract one"):
        evaluation.Predictions(LABEL + 1)


def test_it_stands_in_the_evaluation(tmp_path):
    models = evaluation_lib.Models(tmp_path, val=120)
    (split,) = [s for s in models.splits if s.dataset == "imagenet2012"]
    predicted = evaluation.Predictions(np.minimum(split.labels.label + 1, 999))
    found = evaluation.measure([split], {"mine": [predicted]})
    assert [
        note for note in found.notes if "mine has class ids that seem to be one too high" in note
    ]


def test_the_devkits_order_is_that_of_the_downsampled_imagenet():
    """Whose labels are numbered as the devkit's, in the list that TFDS has of them."""
    from etils import epath

    folder = epath.Path(tensorflow_datasets.__file__).parent / "image_classification"
    assert tuple((folder / "imagenet_resized_labels.txt").read_text().split()) == (
        classes.devkit_wnids()
    )
