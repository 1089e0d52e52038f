"""The report's plots, as SVG that takes its colours from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenet_family.evaluation.measuring import ModelGap
from imagenet_family.metrics.robustness import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_COLOURS = 8
"""How many models have colours of their own, by the CSS variables `--m0`, `--m1`, …"""

# Colours that stand for CSS ones until the SVG is written.
_TEXT = "#0a0b0c"
_FAINT = "#0a0b0d"
_MODELS = [f"#0a0c{i:02x}" for i in range(NUM_COLOURS)]
_CSS = {
    _TEXT: "currentColor",
    _FAINT: "var(--faint)",
    **{colour: f"var(--m{i})" for i, colour in enumerate(_MODELS)},
}
_SIZE = (4.4, 3.5)  # inches; small, so that the text is readable on a phone
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.parse_math": False,
    "text.color": _TEXT,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _TEXT,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _FAINT,
    "grid.alpha": 0.4,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def gap_scatter(
    gaps: Sequence[ModelGap], models: Sequence[str], number: int, title: str, line: Line | None
) -> str:
    """Draws accuracy on new images against accuracy on validation.

    Args:
        gaps: The points, each with the marker of its split.
        models: All models, for their colours.
        number: Number of the plot in the page.
        title: What people call the new images.
        line: The accuracy on them that models are expected to have.

    Returns:
        An `<svg>` element.
    """
    name = f"s{number}"
    figure, axes = _figure("Top-1 on validation, %", f"Top-1 on {title}, %", name)
    corners = []
    for each in gaps:
        x, y = each.gap.validation, each.gap.shifted
        axes.errorbar(
            100 * x.value,
            100 * y.value,
            xerr=_errors(x.value, x.interval.low, x.interval.high),
            yerr=_errors(y.value, y.interval.low, y.interval.high),
            fmt=each.facts.marker,
            color=_colour(models.index(each.model)),
            markersize=6,
            linewidth=1,
        )
        corners += [x.interval.low, x.interval.high, y.interval.low, y.interval.high]
    low = max(0, np.floor(20 * min(corners)) * 5 - 2)
    high = min(100, np.ceil(20 * max(corners)) * 5 + 2)
    ends = np.array([low, high])
    axes.plot(ends, ends, color=_TEXT, linewidth=0.8, linestyle=":")
    if line is not None:
        expected = 100 * np.array([line.expected(end / 100) for end in ends])
        axes.plot(ends, expected, color=_TEXT, linewidth=1.2)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    return _svg(figure, name, f"Accuracy on {title} against accuracy on validation")


def class_curves(
    accuracies: Mapping[str, np.ndarray], models: Sequence[str], number: int, title: str
) -> str:
    """Draws the accuracy of each class, from the worst class to the best.

    Args:
        accuracies: For each model, the accuracy of each class that has images.
        models: All models, for their colours.
        number: Number of the plot in the page.
        title: What the plot shows, for readers who do not see it.

    Returns:
        An `<svg>` element.
    """
    name = f"c{number}"
    figure, axes = _figure("Classes, from worst to best, %", "Top-1, %", name)
    for model, values in accuracies.items():
        share = np.arange(len(values) + 1) * (100 / len(values))
        ordered = 100 * np.sort(values)
        axes.stairs(
            ordered, share, baseline=None, color=_colour(models.index(model)), linewidth=1.6
        )
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 103)
    return _svg(figure, name, title)


def _colour(model: int) -> str:
    return _MODELS[model % NUM_COLOURS]


def _errors(value: float, low: float, high: float) -> list[list[float]]:
    return [[100 * max(0.0, value - low)], [100 * max(0.0, high - value)]]


def _figure(xlabel: str, ylabel: str, salt: str) -> tuple[Figure, Axes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Names are unique within the plot only.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"',
        f'class="plot" role="img" aria-label="{label}"',
        svg,
        count=1,
    )
