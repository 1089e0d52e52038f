"""How much accuracy a model loses from ImageNet's validation images to ImageNetV2."""

from __future__ import annotations

import dataclasses

from imagenet_family.errors import EvaluationError
from imagenet_family.metrics import intervals
from imagenet_family.metrics.results import Accuracy, Measured
from imagenet_family.metrics.robustness import EffectiveRobustness, Line, effective_robustness

# acc_new = 1.11 acc_orig - 20.2 % for top-1 accuracy on the matched-frequency images, with a 95 %
# bootstrap interval of the slope from 1.07 to 1.19, is what summaries of the paper (arXiv
# 1902.10811) quote; the paper's own text was not compared. The most accurate of its models, with
# 82.9 % on validation and 72.2 % on the new images, is 0.4 points above this line. For the other
# two configs no such coefficients are known here.
RECHT_2019 = Line(
    slope=1.11,
    intercept=-0.202,
    scale="linear",
    source='Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019: '
    "top-1, matched frequency",
)


@dataclasses.dataclass(frozen=True)
class V2Gap(Measured):
    """Accuracy lost from the validation set to ImageNetV2.

    Attributes:
        metric: `v2_gap`.
        value: Accuracy on validation minus accuracy on V2; positive if the model is worse on V2.
        interval: Its interval.
        n: Number of V2 images.
        validation: The accuracy on validation.
        v2: The accuracy on V2.
        effective_robustness: None if no line was given.
    """

    validation: Accuracy
    v2: Accuracy
    effective_robustness: EffectiveRobustness | None

    @property
    def shifted(self) -> Accuracy:
        """The accuracy on V2."""
        return self.v2


def v2_gap(validation: Accuracy, v2: Accuracy, line: Line | None = None) -> V2Gap:
    """Returns how much accuracy a model loses from the validation set to ImageNetV2.

    Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML 2019. Effective
    robustness is the accuracy beyond the line of standard models: Taori et al., "Measuring
    Robustness to Natural Distribution Shifts in Image Classification", NeurIPS 2020.

    Args:
        validation: `top1` or `top5` on the validation images.
        v2: The same metric on a config of ImageNetV2.
        line: What to expect on V2. `RECHT_2019` is published for top-1 on the config
            `matched-frequency` only; for anything else, `fit_line` makes one of models that are
            known on both sets.

    Raises:
        EvaluationError: The two are of different metrics or interval levels, or the published
            line is given for another metric than top-1.
    """
    if validation.metric != v2.metric:
        raise EvaluationError(
            f"A gap is between two values of one metric: found {validation.metric} on validation "
            f"and {v2.metric} on V2."
        )
    if line is RECHT_2019 and v2.metric != "top1":
        raise EvaluationError(
            f"The line of Recht et al. is for top-1 accuracy, not for {v2.metric}: pass the line "
            "of fit_line, or none."
        )
    interval = intervals.difference(validation.value, validation.interval, v2.value, v2.interval)
    return V2Gap(
        "v2_gap",
        validation.value - v2.value,
        interval,
        v2.n,
        validation,
        v2,
        None if line is None else effective_robustness(validation, v2, line),
    )
