"""What importing the package's rooms brings along, in a fresh interpreter."""

import subprocess
import sys

# Of these, and of what they import, worker processes and the metrics are made.
LIGHT = [
    "errors",
    "progress",
    "registration",
    "storage",
    "tfds_internals",
    "labels",
    "metrics",
    "downloads",
    "copies",
    "examples",
    "shards",
    "build.processes",
    "build.shard_writing",
    "build.staging",
    "evaluation",
    "export",
    "verify",
    "cli",
]

IMPORT = """
import importlib, pkgutil, sys

HEAVY = {"tensorflow_datasets", "tensorflow", "apache_beam", "torch", "pandas", "matplotlib"}
for room in sys.argv[1:]:
    module = importlib.import_module(f"imagenet_family.{room}")
    inside = pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}.")
    for name in [module.__name__, *(found.name for found in inside)]:
        importlib.import_module(name)
        if heavy := HEAVY & set(sys.modules):
            sys.exit(f"{name} imports {', '.join(sorted(heavy))}")
print("done")
"""


def test_rooms_that_workers_and_metrics_use_import_nothing_heavy():
    result = subprocess.run(
        [sys.executable, "-c", IMPORT, *LIGHT], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "done\n"
