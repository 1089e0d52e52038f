"""What a prediction file holds, as columns: one reader for each format.

A reader is given the open file and `choose`, which says of the names of all columns which of them
are wanted; it gives these by name, as lists or arrays of one entry an image, and nothing else of
the file stays in memory.
"""

from __future__ import annotations

import csv
import itertools
import json
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from imagenet_family.errors import EvaluationError, UsageError

# A thousand logits are about 20 kB of text.
_MAX_LINE_BYTES = 1 << 20
_MAX_ARRAY_BYTES = 4 << 30
_MAX_JSON_BYTES = 1 << 30
_DELIMITERS = ",;\t"  # of which spreadsheets take the second where a comma is in numbers

# What NumPy, zipfile and pyarrow raise, beside OSError, for files of arrays that are damaged,
# encrypted, pickled or absurdly large. An array's header is Python, and the parser has its own.
DAMAGED = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)

Choose = Callable[[Iterable[str]], tuple[str, ...]]
Columns = Mapping[str, Any]


def read_csv(file: BinaryIO, choose: Choose) -> Columns:
    """Reads columns separated by commas, semicolons or tabs, whichever the header has."""
    # Spreadsheets put a byte order mark in front.
    lines = (line.decode("utf-8").removeprefix("\ufeff") for line in _lines(file))
    number = 1
    try:
        first = next(lines, "")
        rows = csv.reader(itertools.chain([first], lines), delimiter=_delimiter(first), strict=True)
        header = [name.strip() for name in next(rows, [])]
        wanted = choose(header)
        places = [header.index(name) for name in wanted]
        columns: list[list[str]] = [[] for _ in wanted]
        for row in rows:
            number = rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                raise EvaluationError(
                    f"line {number}: expected {len(header)} fields as in the header, "
                    f"found {len(row)}."
                )
            for column, place in zip(columns, places, strict=True):
                column.append(row[place])
    except (csv.Error, UnicodeDecodeError) as error:
        raise EvaluationError(f"line {number + 1}: not a CSV file: {error}.") from None
    return dict(zip(wanted, columns, strict=True))


def _delimiter(header: str) -> str:
    """Gives what separates the columns: what the first line has most of."""
    return max(_DELIMITERS, key=header.count)


def read_json_lines(file: BinaryIO, choose: Choose) -> Columns:
    """Reads a JSON object a line."""
    return _columns_of(_json_lines(file), choose)


def read_json(file: BinaryIO, choose: Choose) -> Columns:
    """Reads one JSON document as pandas writes tables: records, split, or by file name."""
    text = file.read(_MAX_JSON_BYTES + 1)
    if len(text) > _MAX_JSON_BYTES:
        raise EvaluationError(f"more than {_MAX_JSON_BYTES:,} bytes of JSON: write JSON lines.")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"not a JSON file: {error}.") from None
    rows = found
    if isinstance(found, dict) and found.keys() >= {"columns", "data"}:
        rows = [dict(zip(found["columns"], row, strict=False)) for row in _list(found["data"])]
    elif isinstance(found, dict):
        rows = [{"file_name": name, **_object(row)} for name, row in found.items()]
    numbered = ((f"entry {number}", row) for number, row in enumerate(_list(rows), start=1))
    return _columns_of(numbered, choose)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise EvaluationError(f"expected a list of rows, found {type(value).__name__}.")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EvaluationError(f"expected a JSON object an image, found {type(value).__name__}.")
    return value


def _json_lines(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(f"line {number}: not a JSON object: {error}.") from None


def _columns_of(rows: Iterable[tuple[str, Any]], choose: Choose) -> Columns:
    """Turns JSON objects into columns; each comes with its place, for messages."""
    wanted: tuple[str, ...] | None = None
    columns: list[list[Any]] = []
    for place, row in rows:
        if not isinstance(row, dict):
            raise EvaluationError(f"{place}: expected a JSON object, found {type(row).__name__}.")
        try:
            found = choose(row)
        except EvaluationError as error:
            raise EvaluationError(f"{place}: {error}") from None
        if wanted is None:
            wanted, columns = found, [[] for _ in found]
        elif found != wanted:
            raise EvaluationError(
                f"{place}: expected {', '.join(wanted)} as on the lines before, found "
                f"{', '.join(found)}."
            )
        for column, name in zip(columns, wanted, strict=True):
            column.append(_compact(row[name]))
    if wanted is None:
        raise EvaluationError("the file is empty: expected a JSON object an image.")
    return dict(zip(wanted, columns, strict=True))


def _compact(value: Any) -> Any:
    """Makes an array of a long list of numbers: it takes a quarter of the memory."""
    if isinstance(value, bool):  # to Python it is a number, and would be class 1
        raise EvaluationError(f"expected a class, found {json.dumps(value)}.")
    if not isinstance(value, list):
        return value
    if any(isinstance(entry, bool) for entry in value):
        raise EvaluationError("expected classes or logits, found true or false among them.")
    if len(value) > 100:
        try:
            return np.asarray(value)
        except ValueError as error:  # lists among the numbers
            raise EvaluationError(f"logits: expected one number a class: {error}.") from None
    return value


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


def read_parquet(file: BinaryIO, choose: Choose) -> Columns:
    """Reads a Parquet file; lists of floats become an array of shape (n, k)."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError("Parquet files are read with pyarrow: pip install pyarrow.") from None
    try:
        table = pq.ParquetFile(file)
        wanted = choose(table.schema_arrow.names)
        _check_parquet_size(table.metadata)
        columns = table.read(columns=list(wanted)).combine_chunks()
        return {name: _parquet_column(columns.column(name), name) for name in wanted}
    except EvaluationError:
        raise
    except (pa.ArrowException, *DAMAGED) as error:
        raise EvaluationError(f"not a Parquet file of predictions: {error}.") from None


def _parquet_column(values: Any, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    is_list = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(check(values.type) for check in is_list):
        return values.to_pylist()
    if not pa.types.is_floating(values.type.value_type):
        return values.to_pylist()
    if values.null_count:
        raise EvaluationError(f"{values.null_count:,} images have no {name}.")
    lengths = pc.list_value_length(values).unique().to_pylist()
    if len(lengths) > 1:
        raise EvaluationError(f"{name}: expected lists of one length, found {lengths[:5]}.")
    rows = [np.asarray(chunk.flatten()) for chunk in values.chunks if len(chunk)]
    return np.concatenate(rows).reshape(len(values), -1) if rows else np.zeros((0, 0))


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


def read_npz(file: BinaryIO, choose: Choose) -> Columns:
    """Reads NumPy's file of named arrays."""
    try:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise EvaluationError(
                "a single array, not an .npz file of named arrays. Call the file .npy if it has "
                "the predictions in the order of the file names."
            )
        with arrays:
            wanted = choose(arrays.files)
            assert arrays.zip is not None  # it is, until it is closed
            for info in arrays.zip.infolist():
                if info.file_size > _MAX_ARRAY_BYTES:
                    raise EvaluationError(
                        f"array {info.filename} has {info.file_size:,} bytes, more than "
                        f"{_MAX_ARRAY_BYTES:,}: write float32 logits or top5."
                    )
            return {name: np.atleast_1d(arrays[name]) for name in wanted}
    except EvaluationError:
        raise
    except DAMAGED as error:
        raise EvaluationError(f"not an .npz file of predictions: {error}.") from None


def read_npy(file: BinaryIO) -> np.ndarray:
    """Reads NumPy's file of a single array."""
    try:
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise EvaluationError("several arrays, not an .npy file of one. Call the file .npz.")
        return np.atleast_1d(array)
    except EvaluationError:
        raise
    except DAMAGED as error:
        raise EvaluationError(f"not an .npy file of predictions: {error}.") from None
