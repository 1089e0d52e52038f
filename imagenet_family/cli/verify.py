"""Checks archives before a build, and prepared datasets after it.

Of archives and label files in manual_dir: is each there, of the right size, whole (the header of
every member is walked), and does it hold as many images and classes as it should? With
--checksums its sha256 is compared, too. Then: which datasets can be built, and what do the others
lack? Of prepared datasets in data_dir: can every record of every shard be read, are they as many
as dataset_info.json says, and are they those that were written?

The exit code is 0 if every file that is there is right and every dataset that is asked for (by
default: at least one) can be built or is whole, else 1.

Examples:
  imagenet-family verify --manual_dir /archives --checksums
  imagenet-family verify --data_dir ~/tensorflow_datasets --dataset imagenet2012
  imagenet-family verify --manual_dir /archives --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping

from imagenet_family.cli import arguments
from imagenet_family.datasets import by_name, catalogue
from imagenet_family.datasets.dataset import Split
from imagenet_family.errors import UsageError
from imagenet_family.verify import manual_dir, prepared_datasets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `imagenet-family verify`."""
    parser.add_argument("--manual_dir", type=arguments.path, help="folder of the archives to check")
    parser.add_argument(
        "--data_dir", type=arguments.path, help="folder of the prepared datasets to check"
    )
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="NAME[/CONFIG][:VERSION]",
        help="only this dataset; may be given several times",
    )
    parser.add_argument(
        "--checksums", action="store_true", help="compute and compare the sha256 of the archives"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments.add_workers(parser)


def run(args: argparse.Namespace) -> int:
    """Runs `imagenet-family verify`."""
    if args.manual_dir is None and args.data_dir is None:
        raise UsageError("Say what to check: --manual_dir DIR, --data_dir DIR, or both.")
    ok = True
    result = {}
    if args.manual_dir is not None:
        wanted = _wanted(args.dataset)
        files = manual_dir.check_files(
            args.manual_dir, manual_dir.files_of(wanted), checksums=args.checksums
        )
        datasets = manual_dir.report_datasets(files, wanted)
        result["files"] = [dataclasses.asdict(file) for file in files]
        result["datasets"] = [
            {**dataclasses.asdict(report), "lacking": [file.name for file in report.lacking]}
            for report in datasets
        ]
        possible = [report.can_be_built for report in datasets]
        ok &= not any(file.problems for file in files)
        ok &= all(possible) if args.dataset else any(possible)
        if not args.json:
            for file in files:
                print(_file_text(file))
            for report in datasets:
                print(_dataset_text(report))
    if args.data_dir is not None:
        result["prepared"] = []
        folders = prepared_datasets.find(args.data_dir, args.dataset)
        arguments.import_tfds()
        for folder in folders:
            prepared = prepared_datasets.check(folder, workers=args.workers)
            result["prepared"].append({**dataclasses.asdict(prepared), "ok": prepared.ok})
            ok &= prepared.ok
            if not args.json:
                print(_prepared_text(prepared))
    if args.json:
        print(json.dumps({"ok": ok, **result}, indent=1))
    return 0 if ok else 1


def _wanted(names: list[str]) -> manual_dir.Datasets:
    """Gives the datasets with configs that names stand for."""
    if not names:
        return catalogue.all_splits()
    wanted: dict[str, Mapping[str, Split]] = {}
    for text in names:
        request = by_name.resolve(text)
        found = request.splits()
        if not found:
            known = ", ".join(name for name, _ in request.facts.full_names(request.name))
            raise UsageError(
                f"There is no dataset {text!r}; there are {known}."
                if known
                else f"{text}: nothing is known of its files. Give its builder a DATASET with them."
            )
        wanted |= found
    return wanted


def _file_text(file: manual_dir.FileReport) -> str:
    if file.state == manual_dir.MISSING:
        by_itself = "a build downloads it from " if file.downloadable else ""
        return f"{file.name}: missing{_in_brackets(by_itself + file.where_to_get)}"
    parts = [] if file.size is None else [f"{file.size:,} bytes"]
    if file.examples is not None:
        parts.append(f"{file.examples:,} examples")
    if file.classes is not None:
        parts.append(f"{file.classes:,} classes")
    if file.sha256 is not None:
        parts.append(f"sha256 {file.sha256}")
    lines = [f"{file.name}: {_STATES[file.state]}: {', '.join(parts)}"]
    lines += [f"  {problem}" for problem in file.problems]
    if file.problems and file.where_to_get:
        lines.append(f"  The published file: {file.where_to_get}")
    return "\n".join(lines)


_STATES = {
    manual_dir.OK: "ok",
    manual_dir.OTHER: "whole, but not the published file",
    manual_dir.DAMAGED: "cannot be used",
}


def _dataset_text(report: manual_dir.DatasetReport) -> str:
    text = f"{report.name}: cannot be built"
    if report.can_be_built:
        text = f"{report.name}: can be built: {', '.join(report.splits)}"
    lacking = [
        f"{file.name} {'is missing' if file.state == manual_dir.MISSING else 'cannot be used'}"
        f"{_in_brackets(file.where_to_get)}"
        for file in report.lacking
    ]
    if report.one_is_enough:
        lacking = [f"one of these is enough: {', '.join(lacking)}"]
    return "; ".join([text, *lacking])


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _prepared_text(report: prepared_datasets.PreparedReport) -> str:
    examples = sum(shard.num_examples or 0 for shard in report.shards)
    shards = f"{len(report.shards)} shard{'' if len(report.shards) == 1 else 's'}"
    state = "ok" if report.ok else "damaged"
    found = [shards, f"{examples:,} examples"]
    if not report.compared:
        found.append("no digests are recorded")
    elif report.ok:
        found.append("digests as recorded")
    lines = [f"{report.name}: {state}: {', '.join(found)}, {report.folder}"]
    lines += [f"  {problem}" for problem in report.problems]
    lines += [f"  {problem}" for shard in report.shards for problem in shard.problems]
    return "\n".join(lines)
