"""What was measured, in words: a plain table for the terminal, and the names of the metrics."""

from __future__ import annotations

from imagenet_family.datasets.dataset import Shift
from imagenet_family.evaluation.measuring import (
    Evaluation,
    ModelGap,
    SplitResult,
    SplitSummary,
)
from imagenet_family.metrics.intervals import Interval
from imagenet_family.metrics.metric import Metric
from imagenet_family.metrics.results import ClassAccuracy, Exclusion, Measured


def rows(evaluation: Evaluation) -> list[tuple[SplitSummary, Metric, list[Measured | None]]]:
    """Gives the rows of the table of all metrics: split, metric, and each model's result."""
    table = []
    for split in evaluation.splits:
        results = [evaluation.result(model, split) for model in evaluation.models]
        for metric in split.facts.metrics:
            # A model whose predictions have one class an image has no top-5 accuracy.
            found = [result.metrics.get(metric.name) for result in results]
            if any(each is not None for each in found):
                table.append((split, metric, found))
    return table


def gaps(evaluation: Evaluation) -> list[tuple[Shift, list[ModelGap]]]:
    """Gives the gaps from validation to new images, together for those of one name."""
    found: dict[str, tuple[Shift, list[ModelGap]]] = {}
    for gap in evaluation.gaps:
        if gap.facts.shift:
            found.setdefault(gap.title, (gap.facts.shift, []))[1].append(gap)
    return list(found.values())


def value(metric: Measured) -> str:
    """Gives a metric as text: a percentage, or a count of mistakes."""
    if isinstance(metric.value, int):
        return f"{metric.value} of {metric.n}"
    return f"{percent(metric.value)} %"


def limits(metric: Measured) -> str:
    """Gives the interval of a metric as text, in its unit."""
    if isinstance(metric.value, int):
        return f"{metric.interval.low:.1f} to {metric.interval.high:.1f}"
    return f"{percent(metric.interval.low)} to {percent(metric.interval.high)}"


def percent(share: float) -> str:
    """Gives a share as a percentage without its sign."""
    return f"{100 * share:.2f}"


def points(share: float) -> str:
    """Gives a difference of shares in percentage points, with plus or minus."""
    return f"{100 * share:+.2f}"


def point_limits(interval: Interval) -> str:
    """Gives the interval of a difference in percentage points."""
    return f"{points(interval.low)} to {points(interval.high)}"


def exclusions(evaluation: Evaluation) -> list[tuple[SplitSummary, str, Exclusion]]:
    """Gives what was not counted, once for all models, as split, metrics and exclusion."""
    found: dict[tuple[int, str], tuple[SplitSummary, list[str], Exclusion]] = {}
    for number, split in enumerate(evaluation.splits):
        result = evaluation.result(evaluation.models[0], split)
        titles = {metric.name: metric.title for metric in split.facts.metrics}
        for name, metric in result.metrics.items():
            for exclusion in getattr(metric, "excluded", ()):
                entry = found.setdefault((number, exclusion.reason), (split, [], exclusion))
                entry[1].append(titles.get(name, name))
    return [(split, ", ".join(names), exclusion) for split, names, exclusion in found.values()]


def classes_without_images(result: SplitResult) -> tuple[int, ...]:
    """Gives the classes that the means over classes of a split leave out."""
    for metric in result.metrics.values():
        if isinstance(metric, ClassAccuracy):
            return metric.per_class.without_images
    return ()


def methods(evaluation: Evaluation) -> list[str]:
    """Gives the methods of the intervals, each with the metrics that it is used for."""
    used: dict[str, dict[str, None]] = {}
    for _, metric, found in rows(evaluation):
        for each in found:
            if each is not None:
                used.setdefault(each.interval.method, {})[metric.title] = None
    for difference in evaluation.differences:
        method = difference.difference.interval.method
        used.setdefault(method, {})[f"differences in {difference.title}"] = None
    for gap in evaluation.gaps:
        used.setdefault(gap.gap.interval.method, {})[f"gaps to {gap.title}"] = None
    return [f"{method}: {', '.join(names)}" for method, names in used.items()]


def as_text(evaluation: Evaluation) -> str:
    """Gives the whole evaluation as text for a terminal."""
    lines = _table(
        ["", "", *evaluation.models],
        [
            [
                f"{split.title} ({split.n:,})",
                metric.title,
                *("" if m is None else f"{value(m)} [{limits(m)}]" for m in found),
            ]
            for split, metric, found in rows(evaluation)
        ],
    )
    for shift, found_gaps in gaps(evaluation):
        lines += ["", f"Lost from validation to {shift.title}, top-1, in percentage points"]
        lines += _table(
            ["", "", "gap", "beyond the published line"],
            [
                [
                    gap.dataset,
                    gap.model,
                    f"{points(gap.gap.value)} [{point_limits(gap.gap.interval)}]",
                    ""
                    if gap.gap.effective_robustness is None
                    else f"{points(gap.gap.effective_robustness.value)} "
                    f"[{point_limits(gap.gap.effective_robustness.interval)}]",
                ]
                for gap in found_gaps
            ],
        )
    if evaluation.differences:
        lines += ["", "Differences on the same images, in percentage points"]
        lines += _table(
            ["", "", "", ""],
            [
                [
                    f"{each.dataset} {each.split}",
                    each.title,
                    f"{each.first} - {each.second}",
                    f"{points(each.difference.value)} [{point_limits(each.difference.interval)}]",
                ]
                for each in evaluation.differences
            ],
        )
    notes = [
        f"{split.title}, {names}: {excluded.n:,} images not counted: {excluded.reason}."
        for split, names, excluded in exclusions(evaluation)
    ]
    for split in evaluation.splits:
        absent = classes_without_images(evaluation.result(evaluation.models[0], split))
        if absent:
            notes.append(
                f"{split.title}: {len(absent):,} classes have no images; means over classes "
                "leave them out."
            )
    notes += evaluation.notes
    origins = dict.fromkeys(split.origin for split in evaluation.splits)
    notes.append(f"Labels from {', '.join(origins)}.")
    notes.append(f"Intervals: {100 * evaluation.level:g} %. " + "; ".join(methods(evaluation)))
    return "\n".join([*lines, "", *notes])


def _table(header: list[str], body: list[list[str]]) -> list[str]:
    """Aligns cells in columns; control characters, as of a terminal, are shown as such."""
    cells = [[_printable(cell) for cell in row] for row in [header, *body]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
        if any(row)
    ]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
