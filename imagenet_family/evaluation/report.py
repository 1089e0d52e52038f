"""The report: an evaluation as one HTML file, for people."""

from __future__ import annotations

import dataclasses
import importlib.resources
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from imagenet_family.errors import UsageError
from imagenet_family.evaluation import plots, summary
from imagenet_family.evaluation.label_sources import LabelledSplit
from imagenet_family.evaluation.measuring import Evaluation, SplitSummary
from imagenet_family.evaluation.thumbnails import Place, thumbnails
from imagenet_family.labels.classes import class_names, wnids
from imagenet_family.metrics.accuracy import PER_CLASS
from imagenet_family.metrics.results import ClassAccuracy, Mistake, MistakeCount, PerClass
from imagenet_family.storage import files
from imagenet_family.storage.paths import PathLike

MAX_BYTES = 1_900_000
"""Most bytes of a report; thumbnails take what the rest leaves."""

_TEMPLATE = "report.html.j2"


@dataclasses.dataclass(frozen=True)
class _Row:
    """A class in the table of all classes: each model's accuracy on each split, None without."""

    class_id: int
    cells: list[int | None]


@dataclasses.dataclass(frozen=True)
class _Missed:
    """An image that a model gets wrong, with what each model predicts, by model.

    A model that gets it right has no entry.
    """

    mistake: Mistake
    predicted: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _MistakeList:
    """A split whose mistakes are shown one by one: its title, each model's count, the images."""

    split: SplitSummary
    title: str
    counts: dict[str, MistakeCount]
    missed: list[_Missed]


def write_report(
    path: PathLike, evaluation: Evaluation, splits: Sequence[LabelledSplit] = ()
) -> None:
    """Writes an evaluation as one HTML file that needs no network.

    Args:
        path: The file to write; one that is there is replaced.
        evaluation: What to show.
        splits: The splits that were measured on, for thumbnails of their images, as far as these
            are at hand.

    Raises:
        UsageError: Jinja2 or matplotlib are not installed.
        BuildError: The file cannot be written.
    """
    html = render(evaluation, splits).encode("utf-8", "replace")
    files.write_output(path, html)


def check_packages() -> None:
    """Checks that the packages that a report is made with are installed.

    Raises:
        UsageError: One is not.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"The report is made with {package}: pip install 'imagenet-family[report]'."
            )


def render(evaluation: Evaluation, splits: Sequence[LabelledSplit] = ()) -> str:
    """Gives the report as HTML; see `write_report`."""
    check_packages()
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = importlib.resources.files("imagenet_family.evaluation") / _TEMPLATE
    template = environment.from_string(source.read_text("utf-8"))
    content = _content(evaluation, Markup)
    wanted = list(dict.fromkeys(_wanted(evaluation, content)))
    # What surrounds the pictures takes room as well.
    blank = {place: (number, "") for number, place in enumerate(wanted)}
    room = MAX_BYTES - len(template.render(content, pictures=blank).encode("utf-8", "replace"))
    made = thumbnails(splits, wanted, room)
    return template.render(content, pictures=_pictures(made))


def _pictures(made: dict[Place, str]) -> dict[Place, tuple[int, str]]:
    """Numbers the pictures; one that is shown several times is in the file once."""
    numbers: dict[str, int] = {}
    return {place: (numbers.setdefault(url, len(numbers)), url) for place, url in made.items()}


def _content(evaluation: Evaluation, markup: Any) -> dict[str, Any]:
    by_class = _splits_with_classes(evaluation)
    return {
        "evaluation": evaluation,
        "summary": summary,
        "rows": summary.rows(evaluation),
        "exclusions": summary.exclusions(evaluation),
        "methods": summary.methods(evaluation),
        "without_images": [
            (split, len(summary.classes_without_images(evaluation.result(model, split))))
            for split in evaluation.splits
            for model in evaluation.models[:1]
        ],
        "by_class": by_class,
        "curves": [
            markup(_curves(evaluation, split, number)) for number, split in enumerate(by_class)
        ],
        "classes": _classes(evaluation, by_class),
        "mistake_lists": _mistake_lists(evaluation),
        "gaps": [
            (
                shift,
                gaps,
                markup(plots.gap_scatter(gaps, evaluation.models, number, shift.title, shift.line)),
            )
            for number, (shift, gaps) in enumerate(summary.gaps(evaluation))
        ],
        "metric_notes": list(
            dict.fromkeys(metric.note for _, metric, _ in summary.rows(evaluation) if metric.note)
        ),
        "names": class_names(),
        "wnids": wnids(),
        "colours": plots.NUM_COLOURS,
    }


def _splits_with_classes(evaluation: Evaluation) -> list[SplitSummary]:
    """Gives the splits to show class by class, without those that repeat another's numbers."""
    shown: dict[bytes, SplitSummary] = {}
    for split in evaluation.splits:
        if PER_CLASS.name in evaluation.result(evaluation.models[0], split).metrics:
            counts = [_per_class(evaluation, model, split) for model in evaluation.models]
            content = b"".join(c.correct.tobytes() + c.total.tobytes() for c in counts)
            shown.setdefault(content, split)
    return list(shown.values())


def _per_class(evaluation: Evaluation, model: str, split: SplitSummary) -> PerClass:
    found = evaluation.result(model, split).metrics[PER_CLASS.name]
    assert isinstance(found, ClassAccuracy)
    return found.per_class


def _curves(evaluation: Evaluation, split: SplitSummary, number: int) -> str:
    accuracies = {}
    for model in evaluation.models:
        per_class = _per_class(evaluation, model, split)
        accuracies[model] = per_class.accuracy[per_class.total > 0]
    title = f"Top-1 accuracy of each class, {split.title}"
    return plots.class_curves(accuracies, evaluation.models, number, title)


def _classes(evaluation: Evaluation, splits: Sequence[SplitSummary]) -> list[_Row]:
    columns = [
        _per_class(evaluation, model, split).accuracy
        for split in splits
        for model in evaluation.models
    ]
    if not columns:
        return []
    table = np.stack(columns, axis=1)
    return [
        _Row(class_id, [None if np.isnan(x) else round(100 * x) for x in row])
        for class_id, row in enumerate(table.tolist())
        if not np.isnan(row).all()
    ]


def _mistake_lists(evaluation: Evaluation) -> list[_MistakeList]:
    lists = []
    for split in evaluation.splits:
        counts = {
            model: metric
            for model in evaluation.models
            for metric in evaluation.result(model, split).metrics.values()
            if isinstance(metric, MistakeCount)
        }
        if not counts:
            continue
        missed: dict[str, _Missed] = {}
        for model, count in counts.items():
            for mistake in count.mistakes:
                entry = missed.setdefault(mistake.file_name, _Missed(mistake, {}))
                entry.predicted[model] = mistake.predicted
        ordered = [missed[name] for name in sorted(missed)]
        lists.append(_MistakeList(split, split.facts.title or split.title, counts, ordered))
    return lists


def _wanted(evaluation: Evaluation, content: dict[str, Any]) -> Iterator[Place]:
    """Gives the images to show, the most important first: one of every list before the second."""
    for each in content["mistake_lists"]:
        for entry in each.missed:
            yield each.split.dataset, each.split.split, entry.mistake.file_name
    lists: list[tuple[SplitSummary, Sequence[str]]] = []
    for split in content["by_class"]:
        for result in (evaluation.result(model, split) for model in evaluation.models):
            lists += [(split, entry.file_names) for entry in result.confusions]
            lists += [(split, [name for name, _ in entry.mistakes]) for entry in result.worst]
    for turn in range(max((len(names) for _, names in lists), default=0)):
        for split, names in lists:
            if turn < len(names):
                yield split.dataset, split.split, names[turn]
