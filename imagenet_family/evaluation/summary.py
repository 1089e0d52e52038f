"""What was measured, in words: a plain table for the terminal, and the names of the metrics."""

from __future__ import annotations

from imagenet_family.evaluation.measuring import Evaluation, Metric, SplitResult, SplitSummary
from imagenet_family.metrics.intervals import Interval
from imagenet_family.metrics.results import ClassAccuracy, Exclusion, ImagenetM

METRIC_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "multilabel_accuracy": "multi-label",
    "multilabel_accuracy_strict": "strict multi-label",
    "real_accuracy": "ReaL",
    "imagenet_m": "mistakes",
}
"""The metrics that are shown one by one, with their names."""

DIFFERENCE_NAMES = {**METRIC_NAMES, "imagenet_m": "images that are right"}
"""The same metrics where they are compared, which for counts of mistakes is done as shares."""


def rows(evaluation: Evaluation) -> list[tuple[SplitSummary, str, list[Metric | None]]]:
    """Gives the rows of the table of all metrics: split, metric, and each model's result."""
    table = []
    for split in evaluation.splits:
        results = [evaluation.result(model, split) for model in evaluation.models]
        # A model whose predictions have one class an image has no top-5 accuracy.
        names = dict.fromkeys(name for result in results for name in result.metrics)
        table += [
            (split, name, [result.metrics.get(name) for result in results])
            for name in names
            if name in METRIC_NAMES
        ]
    return table


def value(metric: Metric) -> str:
    """Gives a metric as text: a percentage, or a count of mistakes."""
    if isinstance(metric, ImagenetM):
        return f"{metric.value} of {metric.n}"
    return f"{percent(metric.value)} %"


def limits(metric: Metric) -> str:
    """Gives the interval of a metric as text, in its unit."""
    if isinstance(metric, ImagenetM):
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
        for name, metric in result.metrics.items():
            for exclusion in getattr(metric, "excluded", ()):
                entry = found.setdefault((number, exclusion.reason), (split, [], exclusion))
                entry[1].append(METRIC_NAMES.get(name, name))
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
    for _, name, found in rows(evaluation):
        for metric in found:
            if metric is not None:
                used.setdefault(metric.interval.method, {})[METRIC_NAMES[name]] = None
    for difference in evaluation.differences:
        name = DIFFERENCE_NAMES[difference.difference.metric]
        method = difference.difference.interval.method
        used.setdefault(method, {})[f"differences in {name}"] = None
    for gap in evaluation.gaps:
        used.setdefault(gap.gap.interval.method, {})["gaps to ImageNetV2"] = None
    return [f"{method}: {', '.join(names)}" for method, names in used.items()]


def as_text(evaluation: Evaluation) -> str:
    """Gives the whole evaluation as text for a terminal."""
    lines = _table(
        ["", "", *evaluation.models],
        [
            [
                f"{split.title} ({split.n:,})",
                METRIC_NAMES[name],
                *("" if m is None else f"{value(m)} [{limits(m)}]" for m in found),
            ]
            for split, name, found in rows(evaluation)
        ],
    )
    if evaluation.gaps:
        lines += ["", "Lost from validation to ImageNetV2, top-1, in percentage points"]
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
                for gap in evaluation.gaps
            ],
        )
    if evaluation.differences:
        lines += ["", "Differences on the same images, in percentage points"]
        lines += _table(
            ["", "", "", ""],
            [
                [
                    f"{each.dataset} {each.split}",
                    DIFFERENCE_NAMES[each.difference.metric],
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
