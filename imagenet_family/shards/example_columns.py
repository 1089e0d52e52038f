"""Columns out of many serialized `tf.train.Example` at once, without touching their images.

All records are walked in step, one NumPy operation for all of them, as their parts come in any
order and in any length. Format: https://protobuf.dev/programming-guides/encoding and
tf.train.Example; integers are packed, as every writer of TFDS packs them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from imagenet_family.examples.table import Column, Ragged

_FIELD_1 = 0x0A  # Example.features, Features.feature, map key, Feature.bytes_list, list value
_FIELD_2 = 0x12  # map value
_FIELD_3 = 0x1A  # Feature.int64_list
_MAX_VARINT = 10


class ExampleError(ValueError):
    """Says what is wrong with a record.

    Attributes:
        row: Which one.
        problem: What, in words.
    """

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(f"record {row}: {problem}")
        self.row, self.problem = row, problem


def parse(
    data: np.ndarray, starts: np.ndarray, stops: np.ndarray, kinds: Mapping[str, type]
) -> dict[str, Column]:
    """Gives the features of many records as columns.

    Args:
        data: uint8; may be a file mapped into memory, of which little is read.
        starts: int64 (n,), where each record starts in `data`.
        stops: int64 (n,), where it ends.
        kinds: The features to read: `str`, `int`, `bool`, or `list` of integers.

    Returns:
        By name: `S` (n,) for text, int64 or bool (n,), or `Ragged`.

    Raises:
        ExampleError: A record is no such example.
    """
    walk = _Walk(data)
    rows = np.arange(len(starts))
    places = walk.features(rows, starts, stops, kinds)
    columns: dict[str, Column] = {}
    for name, kind in kinds.items():
        begin, end = places[name]
        absent = np.nonzero(begin < 0)[0]
        if absent.size:
            raise ExampleError(int(absent[0]), f"{name} is missing")
        if kind is str:
            columns[name] = walk.text(rows, *walk.field(rows, begin, end, _FIELD_1))
        elif kind is list:
            columns[name] = walk.integers(rows, *walk.field(rows, begin, end, _FIELD_3))
        else:
            begin, end = walk.field(rows, begin, end, _FIELD_3)
            begin, end = walk.field(rows, begin, end, _FIELD_1)
            values, after = walk.varint(rows, begin, end)
            _check(rows, after == end, f"{name} has not one value")
            columns[name] = values.astype(bool if kind is bool else np.int64)
    return columns


class _Walk:
    """Steps over the same part of many records; `rows` says which records these are."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data

    def features(
        self, rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, names: Mapping[str, type]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Finds where the `Feature` of each name starts and ends in each record; -1 without."""
        found = {name: (np.full(len(rows), -1), np.full(len(rows), -1)) for name in names}
        position, ends = self.field(rows, starts, stops, _FIELD_1)
        _check(rows, ends == stops, "there is something behind the features")
        while True:
            rows = np.nonzero(position < ends)[0]
            if not rows.size:
                return found
            entry, after = self.field(rows, position[rows], ends[rows], _FIELD_1)
            key, key_end = self.field(rows, entry, after, _FIELD_1)
            value, value_end = self.field(rows, key_end, after, _FIELD_2)
            _check(rows, value_end == after, "there is something behind a feature")
            lengths = key_end - key
            for name, (begin, end) in found.items():
                letters = np.frombuffer(name.encode(), np.uint8)
                same = np.nonzero(lengths == len(letters))[0]
                there = self._data[key[same, None] + np.arange(len(letters))]
                same = same[(there == letters).all(axis=1)]
                begin[rows[same]], end[rows[same]] = value[same], value_end[same]
            position[rows] = after

    def field(
        self, rows: np.ndarray, position: np.ndarray, limit: np.ndarray, tag: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds where the payload of the length-delimited field at `position` starts and ends."""
        _check(rows, position < limit, "it ends inside a field")
        _check(rows, self._data[position] == tag, "it is no tf.train.Example")
        size, begin = self.varint(rows, position + 1, limit)
        _check(rows, (size >= 0) & (size <= limit - begin), "a field reaches past its end")
        return begin, begin + size

    def varint(
        self, rows: np.ndarray, position: np.ndarray, limit: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads the integer at `position`; gives it and where it ends."""
        value, after = np.zeros(len(rows), np.int64), position.copy()
        left = np.arange(len(rows))
        for place in range(_MAX_VARINT):
            _check(rows[left], after[left] < limit[left], "it ends inside a number")
            byte = self._data[after[left]]
            value[left] |= (byte & 0x7F).astype(np.int64) << (7 * place)
            after[left] += 1
            left = left[byte >= 0x80]
            if not left.size:
                return value, after
        raise ExampleError(int(rows[left[0]]), "a number is too long")

    def text(self, rows: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Reads the only string of each BytesList."""
        begin, last = self.field(rows, begin, end, _FIELD_1)
        _check(rows, last == end, "a text has not one value")
        lengths = last - begin
        width = int(lengths.max(initial=1))
        letters = np.zeros((len(rows), width), np.uint8)
        letters[np.arange(width) < lengths[:, None]] = self._gather(begin, lengths)
        return letters.view(f"S{width}")[:, 0]

    def integers(self, rows: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Ragged:
        """Reads the packed integers of each Int64List, which may be empty."""
        some = np.nonzero(begin < end)[0]
        begin[some], last = self.field(rows[some], begin[some], end[some], _FIELD_1)
        _check(rows[some], last == end[some], "a list of numbers is not packed")
        lengths = end - begin
        payload = self._gather(begin, lengths)
        # A number ends with a byte below 0x80, and so does each list.
        stops = np.nonzero(payload < 0x80)[0] + 1
        bounds = np.cumsum(lengths)
        ends = np.searchsorted(stops, bounds, "right")
        whole = np.concatenate([[0], stops])[ends] == bounds
        _check(rows, whole, "a list ends inside a number")
        starts = np.concatenate([[0], stops[:-1]])[: len(stops)]
        values = np.zeros(len(stops), np.int64)
        widths = stops - starts
        if widths.max(initial=0) > _MAX_VARINT:
            raise ExampleError(0, "a number is too long")
        for place in range(int(widths.max(initial=0))):
            has = np.nonzero(widths > place)[0]
            values[has] |= (payload[starts[has] + place] & 0x7F).astype(np.int64) << (7 * place)
        return Ragged(values, ends)

    def _gather(self, begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Gives the bytes of pieces, one after the other."""
        shift = begin - np.concatenate([[0], np.cumsum(lengths)[:-1]])
        return self._data[np.repeat(shift, lengths) + np.arange(int(lengths.sum()))]


def _check(rows: np.ndarray, right: np.ndarray, problem: str) -> None:
    wrong = np.nonzero(~right)[0]
    if wrong.size:
        raise ExampleError(int(rows[wrong[0]]), problem)
