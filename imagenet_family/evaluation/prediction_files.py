"""Prediction files: CSV, JSON lines, Parquet and NPZ.

Every format has the same columns, one row an image:

- `file_name`: the image, as in the dataset's feature `file_name`;
- and one of
  - `prediction`: the best class, as a class id or a wnid;
  - `top5`: the five best classes, best first, as class ids or wnids: a list in JSON lines and
    Parquet, an array of shape (n, 5) in NPZ, separated by blanks in CSV;
  - `logits`: 1,000 logits or probabilities, in the order of the class ids: a list in JSON lines
    and Parquet, an array of shape (n, 1000) in NPZ; not in CSV.

Other columns are ignored. The suffix of the file says the format.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from imagenet_family.errors import EvaluationError, MissingFileError, UsageError
from imagenet_family.labels.classes import NUM_CLASSES
from imagenet_family.metrics import label_columns
from imagenet_family.metrics.predictions import TOP_K, Predictions, as_predictions
from imagenet_family.storage.npz import DAMAGED

_VALUE_COLUMNS = ("prediction", "top5", "logits")
# A thousand logits are about 20 kB of text.
_MAX_LINE_BYTES = 1 << 20
_MAX_ARRAY_BYTES = 4 << 30
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def read_predictions(path: epath.PathLike) -> Predictions:
    """Reads a prediction file; see the module for its columns.

    Args:
        path: A file with the suffix `.csv`, `.jsonl`, `.parquet` or `.npz`.

    Raises:
        MissingFileError: There is no such file.
        UsageError: The suffix is none of these.
        EvaluationError: The file is damaged, lacks a column, or a prediction cannot be used.
    """
    path = epath.Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"{path}: a prediction file ends in {', '.join(_READERS)}; found {path.suffix!r}."
        )
    if not path.exists():
        raise MissingFileError(f"{path}: there is no such prediction file.")
    try:
        with path.open("rb") as file:
            columns = reader(file)
        return _predictions(columns)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error}.") from error


def write_template(path: epath.PathLike, file_names: Iterable[str]) -> None:
    """Writes a prediction file with the file names, and the predictions left to fill in.

    Args:
        path: The file to write, with the suffix `.csv` or `.jsonl`; it must not exist, so that no
            filled-in file is lost.
        file_names: The images, one a row.

    Raises:
        UsageError: The suffix is another, or the file exists.
    """
    path = epath.Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: a template ends in .csv or .jsonl; found {path.suffix!r}.")
    if path.exists():
        raise UsageError(f"{path}: the file exists already; delete it or choose another name.")
    text = io.StringIO(newline="")
    if suffix == ".csv":
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file_name", "prediction"])
        writer.writerows([name, ""] for name in file_names)
    else:
        for name in file_names:
            row = {"file_name": name, "prediction": None}
            text.write(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_bytes(text.getvalue().encode())


def _predictions(columns: Mapping[str, Any]) -> Predictions:
    names = label_columns.file_names(columns["file_name"])
    if not names:
        raise EvaluationError("the file has no predictions.")
    (column,) = columns.keys() - {"file_name"}
    values = columns[column]
    if len(values) != len(names):
        raise EvaluationError(
            f"{len(names):,} file names, but {len(values):,} entries in {column}."
        )
    empty = [name for name, value in zip(names, values, strict=True) if _is_empty(value)]
    if empty:
        raise EvaluationError(
            f"{len(empty):,} of {len(names):,} images have no {column}: "
            f"{label_columns.some(empty)}. Predict every image."
        )
    if column == "logits":
        return Predictions.from_scores(_floats(values), names)
    predictions = as_predictions(values, names)
    if column == "top5" and predictions.top_k.shape[1] != TOP_K:
        raise EvaluationError(
            f"top5: expected five classes an image, found {predictions.top_k.shape[1]}."
        )
    if column == "prediction" and predictions.top_k.shape[1] != 1:
        raise EvaluationError(
            f"prediction: expected one class an image, found {np.shape(values)[1]} values; several "
            "classes go into the column top5, logits into logits."
        )
    return predictions


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


def _floats(values: Any) -> np.ndarray:
    try:
        scores = np.asarray(values)
        # Logits that all happen to be whole numbers are still logits.
        return scores.astype(np.float64) if scores.dtype.kind in "iu" else scores
    except ValueError as error:
        raise EvaluationError(f"logits: every image needs {NUM_CLASSES}: {error}.") from None


def _value_column(found: Iterable[str]) -> str:
    """Returns which of the columns has the predictions."""
    found = list(found)
    chosen = [column for column in found if column in _VALUE_COLUMNS]
    if found.count("file_name") != 1 or len(chosen) != 1:
        raise EvaluationError(
            f"expected the column file_name and one of {', '.join(_VALUE_COLUMNS)}; found the "
            f"columns {label_columns.some(found)}."
        )
    return chosen[0]


def _read_csv(file: BinaryIO) -> dict[str, Any]:
    # Spreadsheets put a byte order mark in front.
    lines = (line.decode("utf-8").removeprefix("\ufeff") for line in _lines(file))
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, [])
        column = _value_column(header)
        if column == "logits":
            raise EvaluationError(
                "logits are not read from CSV: write them as .npz, or the five best classes as "
                "top5."
            )
        name_at, value_at = header.index("file_name"), header.index(column)
        names, values = [], []
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise EvaluationError(
                    f"line {rows.line_num}: expected {len(header)} fields as in the header, "
                    f"found {len(row)}."
                )
            names.append(row[name_at])
            values.append(row[value_at].strip())
    except (csv.Error, UnicodeDecodeError) as error:
        raise EvaluationError(f"line {rows.line_num + 1}: not a CSV file: {error}.") from None
    if column == "top5":
        values = [value.split() or None for value in values]
    return {"file_name": names, column: _numbers(values)}


def _numbers(values: list[Any]) -> list[Any]:
    """Returns class ids as integers if all are; else the strings, which may be wnids."""
    flat = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
    if not all(value and _INTEGER.fullmatch(value) for value in flat):
        return values
    return [[int(v) for v in value] if isinstance(value, list) else int(value) for value in values]


def _read_json_lines(file: BinaryIO) -> dict[str, Any]:
    names, values = [], []
    column = None
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(f"line {number}: not a JSON object: {error}.") from None
        if not isinstance(row, dict):
            raise EvaluationError(
                f"line {number}: expected a JSON object, found {type(row).__name__}."
            )
        try:
            found = _value_column(row)
        except EvaluationError as error:
            raise EvaluationError(f"line {number}: {error}") from None
        if column not in (None, found):
            raise EvaluationError(
                f"line {number}: expected {column} as on the lines before, found {found}."
            )
        column = found
        names.append(row["file_name"])
        value = row[column]
        # An array takes a quarter of the memory of a list.
        is_long = column == "logits" and isinstance(value, list)
        values.append(_floats(value) if is_long else value)
    if column is None:
        raise EvaluationError("the file is empty: expected a JSON object a line.")
    return {"file_name": names, column: values}


def _lines(file: BinaryIO) -> Iterator[bytes]:
    for number in itertools.count(1):
        line = file.readline(_MAX_LINE_BYTES)
        if not line:
            return
        if len(line) == _MAX_LINE_BYTES:
            raise EvaluationError(
                f"line {number} is longer than {_MAX_LINE_BYTES:,} bytes: not a prediction."
            )
        yield line


def _read_parquet(file: BinaryIO) -> dict[str, Any]:
    try:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("Parquet files are read with pyarrow: pip install pyarrow.") from None

    def matrix(values: pa.ChunkedArray) -> np.ndarray:
        is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        if not any(check(values.type) for check in is_list):
            raise EvaluationError(f"logits: expected lists of floats, found {values.type}.")
        if values.null_count:
            raise EvaluationError(f"{values.null_count:,} images have no logits.")
        lengths = pc.list_value_length(values).unique().to_pylist()
        if len(lengths) > 1:
            raise EvaluationError(f"logits: expected lists of one length, found {lengths[:5]}.")
        rows = [np.asarray(chunk.flatten()) for chunk in values.chunks if len(chunk)]
        return np.concatenate(rows).reshape(len(values), -1) if rows else np.zeros((0, 0))

    try:
        table = pq.ParquetFile(file)
        column = _value_column(table.schema_arrow.names)
        _check_parquet_size(table.metadata)
        table = table.read(columns=["file_name", column]).combine_chunks()
        values = table.column(column)
        if column == "logits":
            return {"file_name": table.column("file_name").to_pylist(), column: matrix(values)}
        return {name: table.column(name).to_pylist() for name in table.column_names}
    except EvaluationError:
        raise
    except (pa.ArrowException, *DAMAGED) as error:
        raise EvaluationError(f"not a Parquet file of predictions: {error}.") from None


def _check_parquet_size(metadata: Any) -> None:
    for group, column in itertools.product(
        range(metadata.num_row_groups), range(metadata.num_columns)
    ):
        chunk = metadata.row_group(group).column(column)
        if max(chunk.num_values * 8, chunk.total_uncompressed_size) > _MAX_ARRAY_BYTES:
            raise EvaluationError(
                f"column {chunk.path_in_schema} has {chunk.num_values:,} values, more than fit "
                f"into {_MAX_ARRAY_BYTES:,} bytes: write top5 instead of logits."
            )


def _read_npz(file: BinaryIO) -> dict[str, Any]:
    try:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise EvaluationError("a single array, not an .npz file of named arrays.")
        with arrays:
            column = _value_column(arrays.files)
            for info in arrays.zip.infolist():
                if info.file_size > _MAX_ARRAY_BYTES:
                    raise EvaluationError(
                        f"array {info.filename} has {info.file_size:,} bytes, more than "
                        f"{_MAX_ARRAY_BYTES:,}: write float32 logits or top5."
                    )
            return {name: np.atleast_1d(arrays[name]) for name in ("file_name", column)}
    except EvaluationError:
        raise
    except DAMAGED as error:
        raise EvaluationError(f"not an .npz file of predictions: {error}.") from None


_READERS: dict[str, Callable[[BinaryIO], dict[str, Any]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
}
