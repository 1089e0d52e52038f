"""Running a model over archives and prepared datasets."""

import json

import evaluation_lib
import numpy as np
import parity
import pytest

from imagenet_family import evaluation
from imagenet_family.errors import EvaluationError, MissingFileError, UsageError
from imagenet_family.evaluation import run

NAMES = evaluation_lib.NAMES


def same(first, second):
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())


def brightest(image):
    return np.array([image[..., channel].mean() for channel in range(3)], np.float32)


def logits_of(features):
    weights = np.random.default_rng(1).standard_normal((3, 1000)).astype(np.float32)
    return features @ weights


def test_a_model_sees_every_image_once_in_batches(models):
    seen = []

    def predict(batch):
        assert isinstance(batch, np.ndarray)
        seen.append(batch)
        return logits_of(batch)

    found = evaluation.evaluate(
        predict, NAMES, transform=brightest, batch_size=32, threads=2, **models.options()
    )
    assert sum(map(len, seen)) == 3 * 60 + 120
    assert {len(batch) for batch in seen} <= {32, 60 - 32, 120 - 3 * 32}
    expected = []
    from imagenet_family.examples import images

    for split in models.splits:
        pixels = [images.decode(split.image(row)) for row in range(len(split.labels))]
        scores = logits_of(np.stack([brightest(each) for each in pixels]))
        expected.append(evaluation.Predictions.from_scores(scores, split.labels.file_name))
    same(found, evaluation.measure(models.splits, {"model": expected}))


def test_without_transform_images_keep_their_sizes(models):
    sizes = set()

    def predict(batch):
        assert isinstance(batch, list)
        sizes.update(image.shape for image in batch)
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in batch)
        return [0] * len(batch)

    found = evaluation.evaluate({"zero": predict}, "imagenet2012", **models.options())
    assert found.models == ("zero",)
    assert len(sizes) > 5


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_prepared_datasets_are_run_too(models, tmp_path, file_format):
    parity.build_ours("imagenet2012", models.archives, tmp_path, file_format=file_format)
    parity.build_ours(
        "imagenet_v2", models.archives, tmp_path, config="topimages", file_format=file_format
    )

    def predict(batch):
        return logits_of(np.stack([brightest(image) for image in batch]))

    names = ["imagenet2012", "imagenet_v2/topimages"]
    prepared = evaluation.evaluate(predict, names, data_dir=tmp_path / "ours")
    archived = evaluation.evaluate(predict, names, **models.options())
    for mine, theirs in zip(prepared.results, archived.results, strict=True):
        same(mine.metrics["top5"], theirs.metrics["top5"])


@pytest.mark.parametrize(
    ("predict", "transform", "message"),
    [
        (lambda batch: np.zeros((len(batch), 1001)), brightest, "background class"),
        (lambda batch: np.zeros((1, 1000)), brightest, "1 predictions for a batch of 8"),
        (lambda batch: np.full((len(batch), 1000), np.nan), brightest, "NaN"),
        (lambda batch: None, brightest, "What 'model' returns"),
        (lambda batch: [0] * len(batch), lambda image: image, "transform has to return"),
    ],
)
def test_models_that_return_nonsense(models, predict, transform, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(
            predict, "imagenet2012", transform=transform, batch_size=8, **models.options()
        )


def test_running_needs_images(tmp_path):
    with pytest.raises(MissingFileError, match="only labels"):
        evaluation.evaluate(lambda batch: batch, "imagenet2012", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch_size": 0}, "batch_size"), ({"level": 95}, "0.95: found 95"), ({}, "no models")],
)
def test_arguments_are_checked_before_anything_is_read(arguments, message, monkeypatch):
    monkeypatch.setattr(run, "read_splits", None)
    models = {"model": brightest} if arguments else {}
    with pytest.raises((UsageError, EvaluationError), match=message):
        evaluation.evaluate(models, "imagenet2012", **arguments)


def test_a_models_own_error_comes_through_and_ends_the_threads(models):
    def predict(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluation.evaluate(predict, "imagenet2012", batch_size=4, **models.options())


@pytest.mark.torch
def test_a_torch_model(models):
    import torch

    layer = torch.nn.Linear(3, 1000)

    @torch.inference_mode()
    def predict(batch):
        return layer(torch.from_numpy(batch))

    found = evaluation.evaluate(
        predict,
        "imagenet_v2",
        transform=lambda image: torch.from_numpy(brightest(image)),
        **models.options(),
    )
    assert [r.metrics["top5"].n for r in found.results] == [60, 60, 60]
