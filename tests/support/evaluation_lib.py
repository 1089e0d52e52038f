"""What the tests of the commands, of running models and of the report share."""

from pathlib import Path

import archives_lib
import numpy as np

from imagenet_family import evaluation

NAMES = ("imagenet_v2", "imagenet2012", "imagenet2012_multilabel", "imagenet2012_real")
# A name that is harmful wherever it is not escaped: in HTML, in an attribute, in a formula.
EVIL = """</style><script>alert(1)</script> "'$x$"""


class Models:
    """A family of fake archives, and prediction files of models that are right now and then."""

    def __init__(self, folder: Path, **counts):
        self.folder = folder
        self.archives = folder / "archives"
        self.data_dir = folder / "data"
        counts = {"train": 30, "val": 120, "test": 2, "v2": 60} | counts
        self.family = archives_lib.make_family(self.archives, **counts)
        self.splits = evaluation.read_splits(NAMES, **self.options())

    def options(self) -> dict:
        return {
            "manual_dir": self.archives,
            "data_dir": self.data_dir,
            "verify_checksums": False,
        }

    def arguments(self) -> list[str]:
        folders = ["--manual_dir", str(self.archives), "--data_dir", str(self.data_dir)]
        return [*folders, "--no_verify_checksums"]

    def predict(self, split, skill: float, k: int = 5) -> evaluation.Predictions:
        """Gives predictions that depend on an image's name and the skill only."""
        scores = np.zeros((len(split.labels), 1000), np.float32)
        for row, name in enumerate(split.labels.file_name):
            rng = np.random.default_rng([*name.encode(), int(1000 * skill)])
            scores[row] = rng.random(1000)
            scores[row, split.labels.label[row]] += skill
            scores[row, (split.labels.label[row] + 1) % 1000] += 0.3
        return evaluation.Predictions.from_scores(scores, split.labels.file_name, k)

    def predictions(self, skills: dict[str, float]) -> dict[str, list[evaluation.Predictions]]:
        return {
            model: [self.predict(split, skill) for split in self.splits]
            for model, skill in skills.items()
        }

    def write(self, model: str, skill: float, k: int = 5) -> list[str]:
        """Writes a file for each split with images of its own; gives arguments for them."""
        arguments = []
        for number, split in enumerate(self.splits):
            if split.dataset.startswith("imagenet2012_"):
                continue
            path = self.folder / f"{skill}-{k}-{number}.npz"
            top_k = self.predict(split, skill, k).top_k
            columns = {"top5": top_k} if k == 5 else {"prediction": top_k[:, 0]}
            np.savez(path, file_name=np.array(split.labels.file_name), **columns)
            arguments.append(f"{model}={path}")
        return arguments
