"""Prediction files in every format, damaged ones too."""

import gzip
import io
import json
import re
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagenet_family.errors import (
    EvaluationError,
    ImagenetFamilyError,
    MissingFileError,
    UsageError,
)
from imagenet_family.evaluation import Predictions, read_predictions, write_template
from imagenet_family.labels.classes import NUM_CLASSES, wnids

NAMES = ["0/a.jpeg", "1/ü, “b”.jpeg", "2/c.jpeg"]
SCORES = np.random.default_rng(0).standard_normal((3, NUM_CLASSES), dtype=np.float32)
TOP5 = Predictions.from_scores(SCORES).top_k
BEST = TOP5[:, :1]
TOP5_WNIDS = np.array(wnids())[TOP5]


def _write_csv(path, column, values):
    lines = [f"model,file_name,{column}"]
    for name, value in zip(NAMES, values, strict=True):
        cell = " ".join(map(str, value)) if np.ndim(value) else value
        lines.append('x,"{}",{}'.format(name.replace('"', '""'), cell))
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _write_jsonl(path, column, values):
    rows = [
        {"file_name": name, column: np.asarray(value).tolist(), "model": "x"}
        for name, value in zip(NAMES, values, strict=True)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", "utf-8")


def _write_parquet(path, column, values):
    columns = {
        "file_name": NAMES,
        column: [np.asarray(v).tolist() for v in values],
        "model": [1] * 3,
    }
    pq.write_table(pa.table(columns), path, row_group_size=2)


def _write_npz(path, column, values):
    np.savez_compressed(path, file_name=np.array(NAMES), model=np.zeros(3), **{column: values})


WRITERS = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
    ".npz": _write_npz,
}
CONTENTS = {
    "ids": ("prediction", BEST[:, 0], BEST),
    "wnids": ("prediction", TOP5_WNIDS[:, 0], BEST),
    "top5": ("top5", TOP5, TOP5),
    "top5 wnids": ("top5", TOP5_WNIDS, TOP5),
    "logits": ("logits", SCORES, TOP5),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_predictions(tmp_path, suffix, content):
    column, values, expected = CONTENTS[content]
    path = tmp_path / f"predictions{suffix}"
    WRITERS[suffix](path, column, values)
    if (suffix, content) == (".csv", "logits"):
        with pytest.raises(EvaluationError, match="logits are not read from CSV"):
            read_predictions(path)
        return
    found = read_predictions(str(path))
    assert found.file_names == tuple(NAMES)
    np.testing.assert_array_equal(found.top_k, expected)


def test_csv_of_a_spreadsheet(tmp_path):
    path = tmp_path / "predictions.CSV"
    path.write_bytes("\ufefffile_name,prediction\r\na,3\r\n\r\nb, 4\r\n".encode())
    found = read_predictions(path)
    assert found.file_names == ("a", "b")
    assert found.top_k.tolist() == [[3], [4]]


def test_logits_that_are_whole_numbers(tmp_path):
    rows = [{"file_name": "a", "logits": [0] * 999 + [7]}]
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(rows[0]))
    assert read_predictions(path).top_k.tolist() == [[999, 0, 1, 2, 3]]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_template_is_filled_in_and_read(tmp_path, suffix):
    path = tmp_path / f"template{suffix}"
    write_template(path, iter(NAMES))
    with pytest.raises(EvaluationError, match=r"3 of 3 images have no prediction: '0/a.jpeg'"):
        read_predictions(path)
    text = path.read_text("utf-8")
    filled = (
        re.sub(",$", ",17", text, flags=re.M) if suffix == ".csv" else text.replace("null", "17")
    )
    path.write_text(filled, "utf-8")
    found = read_predictions(path)
    assert found.file_names == tuple(NAMES)
    assert found.top_k.tolist() == [[17]] * 3


def test_template_does_not_overwrite(tmp_path):
    path = tmp_path / "template.csv"
    path.write_text("hours of work")
    with pytest.raises(UsageError, match="exists already"):
        write_template(path, NAMES)
    assert path.read_text() == "hours of work"
    with pytest.raises(UsageError, match=r"a template ends in .csv or .jsonl; found '.npz'"):
        write_template(tmp_path / "template.npz", NAMES)


def test_no_such_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"p\.csv: there is no such"):
        read_predictions(tmp_path / "p.csv")
    with pytest.raises(
        UsageError, match=r"\.jsonl, \.json, \.parquet, \.npz or \.npy; found '\.xlsx'"
    ):
        read_predictions(tmp_path / "p.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_predictions(tmp_path / "folder.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the column file_name"),
        ("file_name,label\na,1\n", "found the columns 'file_name', 'label'"),
        ("prediction\n1\n", "expected the column file_name"),
        ("file_name,prediction,top5\na,1,1\n", "one of prediction, top5, logits"),
        ("file_name,prediction,prediction\na,1,2\n", "one of prediction, top5, logits"),
        ("file_name,prediction\n", "the file has no predictions"),
        ("file_name,prediction\na,1\nb\n", "line 3: expected 2 fields.*found 1"),
        ("file_name,prediction\na,1\nb,2,3\n", "line 3: expected 2 fields.*found 3"),
        ('file_name,prediction\n"a,1\n', "not a CSV file"),
        ("file_name,prediction\na,1\na,2\n", "more than once in the predictions: 'a'"),
        ("file_name,prediction\na,\nb,2\n", "1 of 2 images have no prediction: 'a'"),
        ("file_name,top5\na,\nb,1 2 3 4 5\n", "1 of 2 images have no top5: 'a'"),
        ("file_name,prediction\na,1000\n", r"1000 \('a'\)"),
        ("file_name,prediction\na,-1\n", r"-1 \('a'\)"),
        ("file_name,prediction\na,65.5\n", "not among the 1,000 wnids.*'65.5'"),
        ("file_name,prediction\na,nan\n", "not among the 1,000 wnids.*'nan'"),
        ("filename,label,prob\na,tench,0.9\n", "inference.py writes with --include-index"),
        ("file_name,prediction\na,tench\n", "'tench'"),
        ("file_name,prediction\na," + "9" * 5000 + "\n", "'9{100}…'"),
        ("file_name,top5\na,1 2 3\n", "expected five classes an image, found 3"),
        ("file_name,top5\na,1 2 3 4 5\nb,1 2\n", "do not make an array"),
        ("file_name,top5\na,1 2 3 4 4\n", "name a class more than once: 'a'"),
        ("file_name,prediction\na,\x00\n", "wnids|not a CSV file"),
        ("file_name,prediction\r1,2\r", "not a CSV file"),
    ],
)
def test_damaged_csv(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_bytes(text.encode())
    with pytest.raises(EvaluationError, match=message) as error:
        read_predictions(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 800


def test_csv_that_is_not_text(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"file_name,prediction\na,1\n\xff\xfe,2\n")
    with pytest.raises(EvaluationError, match="line 3: not a CSV file"):
        read_predictions(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_line_without_end_is_not_read_into_memory(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(b"file_name,prediction\n" * (suffix == ".csv") + b"a" * (2 << 20))
    with pytest.raises(EvaluationError, match="is longer than 1,048,576 bytes"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("{", "line 1: not a JSON object"),
        ("[1]", "line 1: expected a JSON object, found list"),
        ("[" * 100_000, "line 1: not a JSON object"),
        ('{"file_name": "a", "label": 1}', "line 1: expected the column file_name"),
        ('{"file_name": "a", "prediction": 1}\n{"file_name": "b", "top5": [1]}', "line 2.*top5"),
        ('{"file_name": 7, "prediction": 1}', "File name 0 is not text"),
        ('{"file_name": "a", "prediction": 1.5}', "found float64"),
        ('{"file_name": "a", "prediction": true}', "expected a class, found true"),
        ('{"file_name": "a", "top5": [1, 2, 3, 4, true]}', "true or false"),
        ('{"file_name": "a", "prediction": [1, 2]}', "expected one class an image, found 2"),
        ('{"file_name": "a", "prediction": [' + "1.5, " * 999 + "1]}", "logits into logits"),
        ('{"file_name": "a", "prediction": {"x": 1}}', "found object"),
        ('{"file_name": "a", "prediction": 1' + "0" * 50 + "}", "found object"),
        ('{"file_name": "a", "prediction": null}', "no prediction"),
        ('{"file_name": "a", "logits": [1.5, NaN]}', r"found \(1, 2\)"),
        ('{"file_name": "a", "logits": [' + "NaN, " * 999 + "1]}", "NaN"),
        ('{"file_name": "a", "logits": 3}', "found"),
        ('{"file_name": "a", "logits": null}', "1 of 1 images have no logits: 'a'"),
        ('{"file_name": "a", "logits": "abc"}', "Logits are floats"),
        ('{"file_name": "a", "logits": [1, [2]]}', "logits"),
        ('{"file_name":"a","logits":[1.5]}\n{"file_name":"b","logits":[1.5,2]}', "logits"),
    ],
)
def test_damaged_json_lines(tmp_path, text, message):
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        read_predictions(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected the column file_name"),
        ({"logits": SCORES}, "expected the column file_name"),
        ({"file_name": np.array(NAMES), "logits": SCORES[:2]}, "3 file names, but 2 entries"),
        ({"file_name": np.array(NAMES), "logits": SCORES[:, :9]}, r"found \(3, 9\)"),
        ({"file_name": np.array(NAMES), "logits": np.float32(3)}, "3 file names, but 1 entries"),
        ({"file_name": np.array(NAMES), "prediction": SCORES}, "prediction"),
        ({"file_name": np.array([[1, 2], [3, 4]]), "prediction": [1, 2]}, "not text"),
        ({"file_name": np.array(NAMES, object), "prediction": BEST}, "allow_pickle"),
        ({"file_name": np.array(NAMES), "prediction": np.array([{}] * 3)}, "allow_pickle"),
    ],
)
def test_damaged_npz(tmp_path, arrays, message):
    path = tmp_path / "p.npz"
    np.savez(path, **arrays)
    with pytest.raises(EvaluationError, match=message):
        read_predictions(path)


def test_npz_that_is_a_single_array_or_a_pickle(tmp_path):
    path = tmp_path / "p.npz"
    with path.open("wb") as file:
        np.save(file, BEST)
    with pytest.raises(EvaluationError, match="a single array"):
        read_predictions(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(EvaluationError, match=r"not an .npz file"):
        read_predictions(path)


def npy_header(text):
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "logits",
    [
        npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1000)}"),
        npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L,") + bytes(24),
        npy_header(b"{'descr': '<f4',\n   'fortran_order': False}\n  1L") + bytes(24),
    ],
)
def test_npz_whose_header_makes_no_sense(tmp_path, logits):
    path = tmp_path / "p.npz"
    names = io.BytesIO()
    np.save(names, np.array(NAMES))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("file_name.npy", names.getvalue())
        archive.writestr("logits.npy", logits)
    with pytest.raises(EvaluationError, match=r"not an .npz file of predictions"):
        read_predictions(path)


def test_damaged_npz_of_another_compression(tmp_path):
    path = tmp_path / "p.npz"
    names = io.BytesIO()
    np.save(names, np.array(NAMES))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("file_name.npy", names.getvalue())
        archive.writestr("prediction.npy", names.getvalue())
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF  # in the compressed names
    path.write_bytes(data)
    with pytest.raises(EvaluationError, match=r"not an .npz file of predictions"):
        read_predictions(path)


def test_parquet_of_other_kinds(tmp_path):
    path = tmp_path / "p.parquet"
    for columns, message in (
        ({"file_name": NAMES}, "one of prediction"),
        ({"file_name": NAMES, "prediction": [1, None, 3]}, "1 of 3 images have no prediction"),
        ({"file_name": NAMES, "prediction": [1.0, 2.5, 3.0]}, "found float64"),
        ({"file_name": NAMES, "logits": [[1.0], None, [2.0]]}, "1 images have no logits"),
        ({"file_name": NAMES, "logits": [[1.0], [1.0, 2.0], [2.0]]}, "lists of one length"),
        ({"file_name": NAMES, "logits": [1.0, 2.0, 3.0]}, r"Logits have shape \(n, 1000\)"),
        ({"file_name": NAMES, "logits": [["a"], ["b"], ["c"]]}, "Logits are floats"),
        ({"file_name": NAMES, "logits": [[], [], []]}, r"found \(3, 0\)"),
        ({"file_name": [], "logits": []}, "no predictions"),
        ({"file_name": [], "prediction": []}, "no predictions"),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(EvaluationError, match=message):
            read_predictions(path)
    for kind in (pa.large_list(pa.float32()), pa.list_(pa.float32(), NUM_CLASSES)):
        column = pa.array(SCORES.tolist(), kind)
        pq.write_table(pa.table({"file_name": NAMES, "logits": column}), path)
        np.testing.assert_array_equal(read_predictions(path).top_k, TOP5)
    path.write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(EvaluationError, match=r"p\.parquet: "):
        read_predictions(path)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    contents = {}
    for suffix, write in WRITERS.items():
        path = folder / f"whole{suffix}"
        write(path, "top5", TOP5)
        contents[suffix] = path.read_bytes()
    return folder, contents


@pytest.mark.parametrize("suffix", WRITERS)
@settings(deadline=None)
@given(data=st.data())
def test_any_damage_gives_this_error_or_predictions(whole_files, suffix, data):
    folder, contents = whole_files
    whole = contents[suffix]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 40)))
    damaged = whole[:start] + data.draw(st.binary(max_size=40)) + whole[stop:]
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    path = folder / f"damaged{suffix}"
    path.write_bytes(damaged)
    try:
        found = read_predictions(path)
    except ImagenetFamilyError:
        return
    assert found.top_k.min() >= 0
    assert found.top_k.max() < NUM_CLASSES


def _gz(data):
    return gzip.compress(data, mtime=0)  # so that each process collects the same tests


def _npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _parquet(columns):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


_TOP2 = [[65, 970], [3, 2]]
_LISTS = "[[65, 970], [3, 2]]"
_SPLIT = '{"columns": ["filename", "index"], "data": [["a", [65, 970]], ["b", [3, 2]]]}'
_INDEXED = '{"a": {"index": [65, 970], "prob": [0.8, 0.1]}, "b": {"index": [3, 2]}}'

# What existing tools write: file name, content, and the classes that are meant.
OF_TOOLS = {
    "timm, one class": (
        "p.csv",
        b"filename,index,label,prob\na,65,x,0.8\nb,3,y,0.7\n",
        [[65], [3]],
    ),
    "timm, top 2": (
        "p.csv",
        b"filename,index,label,prob\na,[ 65 970],\"['x' 'y']\",[0.8 0.1]\nb,[3 2],-,[1 0]\n",
        _TOP2,
    ),
    "timm, separate columns": (
        "p.csv",
        b"filename,index_0,index_1,prob_0,prob_1\na,65,970,0.8,0.1\nb,3,2,0.9,0.1\n",
        _TOP2,
    ),
    "timm, json by name": ("p.json", _INDEXED.encode(), _TOP2),
    "timm, json split": ("p.json", _SPLIT.encode(), _TOP2),
    "pandas records": (
        "p.json",
        b'[{"file_name": "a", "prediction": 65}, {"file_name": "b", "prediction": 3.0}]',
        [[65], [3]],
    ),
    "timm, parquet": ("p.parquet", {"filename": ["a", "b"], "index": _TOP2}, _TOP2),
    "pandas floats, parquet": (
        "p.parquet",
        {"file_name": ["a", "b"], "prediction": [65.0, 3.0]},
        [[65], [3]],
    ),
    "pandas floats": ("p.csv", b"file_name,prediction\na,65.0\nb,3.\n", [[65], [3]]),
    "lists of one": ("p.csv", b'file_name,prediction\na,[65]\nb,"[3]"\n', [[65], [3]]),
    "lists with commas": ("p.csv", b'file_name,top5\na,"[1, 2, 3, 4, 5]"\n', [[1, 2, 3, 4, 5]]),
    "wnids with quotes": (
        "p.csv",
        b"file_name,index\na,['n01440764' 'n01443537']\n",
        [[0, 1]],
    ),
    "semicolons": ("p.csv", b"file_name;prediction\na;65\nb;3\n", [[65], [3]]),
    "tabs": ("p.csv", b"file_name\tprediction\na\t65\nb\t3\n", [[65], [3]]),
    "blanks before names": ("p.csv", b"file_name, prediction\na, 65\nb, 3\n", [[65], [3]]),
    "gzip": ("p.csv.gz", _gz(b"file_name,prediction\na,65\nb,3\n"), [[65], [3]]),
    "gzip, JSON lines": ("P.JSONL.GZ", _gz(b'{"file_name": "a", "prediction": 65}'), [[65]]),
    "npy, best class": ("p.npy", _npy(np.array([65, 3])), [[65], [3]]),
    "npy, floats": ("p.npy", _npy(np.array([65.0, 3.0])), [[65], [3]]),
    "npy, top 2": ("p.npy", _npy(np.array(_TOP2)), _TOP2),
    "npy, wnids": ("p.npy", _npy(np.array(["n01440764", "n01443537"])), [[0], [1]]),
    "npy, logits": ("p.npy", _npy(SCORES), TOP5.tolist()),
}


@pytest.mark.parametrize("tool", OF_TOOLS)
def test_files_of_existing_tools(tool, tmp_path):
    name, content, expected = OF_TOOLS[tool]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else _parquet(content))
    found = read_predictions(path)
    assert found.top_k.tolist() == expected
    named = None if name.endswith(".npy") else tuple("abc"[: len(expected)])
    assert found.file_names == named


def test_timms_scores_of_all_classes(tmp_path):
    path = tmp_path / "p.parquet"
    path.write_bytes(_parquet({"filename": NAMES, "prob": SCORES.tolist()}))
    np.testing.assert_array_equal(read_predictions(path).top_k, TOP5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv.gz", b"file_name,prediction\na,65\n", "cannot be read: Not a gzipped file"),
        ("p.csv.gz", _gz(b"file_name,prediction\na,65\n" * 99)[:-12], "cannot be read"),
        ("p.json", b"{", "not a JSON file"),
        ("p.json", b"3", "expected a list of rows, found int"),
        ("p.json", b'{"a": 3}', "expected a JSON object an image, found int"),
        ("p.json", b'[{"file_name": "a"}]', "entry 1: expected the column file_name"),
        ("p.json", b'[{"file_name": "a", "prediction": false}]', "found false"),
        ("p.npy", b"\x93NUMPY", "not an .npy file"),
        ("p.npy", _npy(np.array([True, False])), "found bool"),
        ("p.npy", _npy(np.array([1.5])), "found float64"),
        ("p.npy", _npy(np.zeros(0)), "no predictions"),
        ("p.npy", _npy(SCORES[:, :5]), r"found \(3, 5\)"),
    ],
)
def test_damaged_files_of_tools(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        read_predictions(path)


def test_only_text_may_be_compressed(tmp_path):
    with pytest.raises(UsageError, match=r"found '\.gz'"):
        read_predictions(tmp_path / "p.npz.gz")
