"""Runs a model over the datasets: images in, logits out, numbers at the end."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from imagenet_family.datasets import by_name
from imagenet_family.errors import EvaluationError, ImageError, MissingFileError, UsageError
from imagenet_family.evaluation import measuring
from imagenet_family.evaluation.label_sources import LabelledSplit, read_splits
from imagenet_family.examples import images
from imagenet_family.metrics.intervals import LEVEL, checked_level
from imagenet_family.metrics.predictions import Predictions, as_predictions
from imagenet_family.progress import tfds_bars_enabled

if TYPE_CHECKING:
    from imagenet_family.storage.paths import PathLike

# Batches that are read and transformed ahead while the model works.
_AHEAD = 2
_MODEL = "model"

PredictFn = Callable[[Any], Any]
_NameSpace = str


def evaluate(
    predict_fn: PredictFn | Mapping[str, PredictFn],
    names: by_name.Name | Iterable[by_name.Name],
    *,
    transform: Callable[[np.ndarray], Any] | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    data_dir: PathLike | None = None,
    manual_dir: PathLike | None = None,
    download_dir: PathLike | None = None,
    level: float = LEVEL,
    progress: bool = True,
    **builder_kwargs: Any,
) -> measuring.Evaluation:
    """Runs one or several models over datasets and computes everything that these are for.

    The images are read from the archives or the prepared datasets and decoded in threads while
    the model works. ImageNet's validation images are in several datasets: each is predicted once.

    Args:
        predict_fn: Called with a batch, returns float logits of shape (batch, 1000), or the best
            class ids, of shape (batch,) or (batch, k), as anything that `numpy.asarray` takes. For
            several models, a mapping from their names.
        names: Datasets; see `read_splits`.
        transform: What is done to each image, uint8 of shape (height, width, 3), in threads; the
            results are stacked with `numpy.stack` and become the batch. None if the model
            does this: its batch is the list of the images, each of its own size.
        batch_size: Images in a batch; the last one is smaller.
        threads: Threads that read and transform; None for one for each core.
        data_dir: See `read_splits`.
        manual_dir: See `read_splits`.
        download_dir: See `read_splits`.
        level: Nominal coverage of the intervals.
        progress: Whether to show progress bars.
        **builder_kwargs: See `read_splits`.

    Returns:
        The metrics, `to_dict()` for JSON; `write_report` makes a page of it.

    Raises:
        UsageError: An argument cannot be used.
        MissingFileError: A dataset's images are not at hand.
        EvaluationError: The level is not between 0 and 1, or the model returns something that is
            no prediction of the batch.
        ImagenetFamilyError: An archive or an image is damaged.
    """
    models = dict(predict_fn) if isinstance(predict_fn, Mapping) else {_MODEL: predict_fn}
    if batch_size < 1 or (threads is not None and threads < 1):
        raise UsageError(f"batch_size and threads are at least 1: found {batch_size}, {threads}.")
    if not models:
        raise UsageError("There are no models to run: pass one, or a mapping with one.")
    checked_level(level)
    splits = read_splits(
        names,
        data_dir=data_dir,
        manual_dir=manual_dir,
        download_dir=download_dir,
        progress=progress,
        **builder_kwargs,
    )
    for split in splits:
        _reader(split)
    known: dict[_NameSpace, dict[str, dict[str, np.ndarray]]] = {}
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for split in splits:
            _predict(models, split, known, transform, batch_size, pool, progress)
    predictions = {
        model: [_gather(split, known[split.name_space], model) for split in splits]
        for model in models
    }
    return measuring.measure(splits, predictions, level=level)


def _reader(split: LabelledSplit) -> Callable[[int], bytes]:
    """Gives what reads a split's images."""
    if split.image is None:
        raise MissingFileError(
            f"{split.title}: there are only labels, from {split.origin}. Pass manual_dir with "
            "the archive, or data_dir with the dataset prepared as tfrecord or array_record."
        )
    return split.image


def _predict(
    models: Mapping[str, PredictFn],
    split: LabelledSplit,
    known: dict[_NameSpace, dict[str, dict[str, np.ndarray]]],
    transform: Callable[[np.ndarray], Any] | None,
    batch_size: int,
    pool: ThreadPoolExecutor,
    progress: bool,
) -> None:
    """Runs the models on the images of a split that they have not seen yet."""
    seen = known.setdefault(split.name_space, {})
    names = split.labels.file_name
    rows = [row for row, name in enumerate(names) if name not in seen]

    read = _reader(split)

    def load(row: int) -> Any:
        try:
            image = images.decode(read(row))
        except ImageError as error:
            raise ImageError(f"{split.title}, {names[row]}: {error}") from error
        return image if transform is None else transform(image)

    with tqdm(
        desc=split.title,
        total=len(rows),
        unit="image",
        mininterval=0.2,
        disable=None if progress and tfds_bars_enabled() else True,
    ) as bar:
        for chunk, loaded in _batches(pool, load, rows, batch_size):
            batch = loaded if transform is None else _stack(loaded)
            for model, predict in models.items():
                chosen = [names[row] for row in chunk]
                top_k = _checked(predict(batch), chosen, model)
                for name, best in zip(chosen, top_k, strict=True):
                    seen.setdefault(name, {})[model] = best
            bar.update(len(chunk))


def _batches(
    pool: ThreadPoolExecutor, load: Callable[[int], Any], rows: list[int], size: int
) -> Iterator[tuple[list[int], list[Any]]]:
    """Loads images in threads, a few batches ahead, and gives batches in order."""
    waiting: collections.deque[tuple[list[int], list[Future[Any]]]] = collections.deque()
    chunks = iter([rows[start : start + size] for start in range(0, len(rows), size)])
    try:
        while True:
            for chunk in itertools.islice(chunks, _AHEAD + 1 - len(waiting)):
                waiting.append((chunk, [pool.submit(load, row) for row in chunk]))
            if not waiting:
                return
            chunk, futures = waiting.popleft()
            yield chunk, [future.result() for future in futures]
    finally:
        for _, futures in waiting:
            for future in futures:
                future.cancel()


def _stack(loaded: list[Any]) -> np.ndarray:
    try:
        return np.stack(loaded)
    except (ValueError, TypeError, RuntimeError) as error:
        shapes = sorted({str(np.shape(image)) for image in loaded})
        raise EvaluationError(
            f"The transformed images do not make a batch ({error}): their shapes are "
            f"{', '.join(shapes[:5])}. transform has to return arrays of one shape."
        ) from error


def _checked(output: Any, names: list[str], model: str) -> np.ndarray:
    try:
        if not isinstance(output, Predictions):
            output = np.asarray(output)
        predictions = as_predictions(output)
        if len(predictions) != len(names):
            raise EvaluationError(
                f"{len(predictions):,} predictions for a batch of {len(names):,} images, such as "
                f"{names[0]!r}."
            )
    except (EvaluationError, TypeError, ValueError, RuntimeError) as error:
        raise EvaluationError(f"What {model!r} returns: {error}") from error
    return predictions.top_k


def _gather(
    split: LabelledSplit, seen: Mapping[str, Mapping[str, np.ndarray]], model: str
) -> Predictions:
    best = [seen[name][model] for name in split.labels.file_name]
    sizes = {len(row) for row in best}
    if len(sizes) > 1:
        raise EvaluationError(
            f"{model!r} returns {sorted(sizes)} classes an image in different batches: return "
            "logits, or as many classes every time."
        )
    return Predictions(np.stack(best), split.labels.file_name)
