"""Tables of sentences are read strictly: a row is what its header says, or a fault."""

import csv
import io
import json
import pathlib
import random
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.streams import registry, table_files
from mmcl_jax.streams.folders import Folders
from tests import helpers
from tests.odd_files import HTML, LFS

CASES = helpers.REPOSITORY.parent / "shared" / "cases"
HEAD = "text,label\n"


def _read(path: pathlib.Path) -> dict[str, list[tuple[str, int]]]:
    """Returns text and line of each row by label; raises what is wrong."""
    faults, table = Faults(), {}
    with faults.collecting():
        table = table_files.read_table(path, path.parent, faults)
    faults.check()
    return {k: [(r.text, r.row) for r in rows] for k, rows in table.items()}


def _write(tmp_path: pathlib.Path, content: str | bytes, suffix: str = ".csv"):
    path = tmp_path / f"train{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _fault(path: pathlib.Path) -> str:
    with pytest.raises(DataError) as caught:
        _read(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        # a comma in a sentence, whichever column comes first
        (HEAD + "a,x\nb, c,y\n", ":3: expected 2 fields in line 3, found 3; quote a"),
        ("label,text\nx,a\ny,b, c\n", ":3: expected 2 fields in line 3, found 3"),
        (HEAD + "a,x\nb\n", ":3: expected 2 fields in line 3, found 1"),
        ("text,label,id\na,x\n", ":2: expected 3 fields in line 2, found 2"),
        # after a value of several lines
        (HEAD + '"a\n\nb",x\nc,y,z\n', ":5: expected 2 fields in line 5, found 3"),
        (HEAD + 'a,x\n"b\nc",y,z\n', ":3: expected 2 fields in line 3, found 3"),
        ('label,text\nx,a\n"y,b\nz",c\n', ":3: label has several lines and a comma"),
        (HEAD + 'a,x\n"b,y\nc,z\n', ":3: a quote in the row that begins in line 3 is"),
        (HEAD + '"a"b,x\n', ":2: a quoted value of the row that begins in line 2"),
        (HEAD + 'a, "x"\n', ":2: white space before a quote"),
        (HEAD + '"a", "x, y"\n', ":2: expected 2 fields in line 2, found 3"),
        ("text,label,Text\na,x,b\n", ":1: columns 'text' stand there twice"),
        ("text,lable\na,x\n", ":1: no column label among 'text', 'lable'; rename"),
        ("sentence,class\na,x\n", "rename 'sentence' to 'text'"),
        ("text;label\na;x\n", ":1: no column text and label among 'text;label'; its"),
        ("text\tlabel\na\tx\n", "separated by tabs, save it with commas"),
        ("text|label\na|x\n", "separated by bars, save it with commas"),
        (HEAD + "a,x\nb\0,y\n", ":3: a NUL byte in line 3"),
        ((HEAD + "a,x\n").encode("utf-16"), "encoded as UTF-16; save it as UTF-8"),
        (HEAD + "a,x\nb\rc,y\n", ":3: a carriage return without line feed in line 3"),
        ("text,label\ra,x\rb,y\r", ":1: a carriage return without line feed in line 1"),
        (HEAD.encode() + b"a,x\ngr\xfc\xdf,y\n", ":3: byte 0xfc at place 3 of line 3"),
        (HEAD + "a, \n", ":2: empty label"),
        (HEAD + "a,\u200b\n", ":2: empty label"),
        (HEAD + "a," + "x" * 256, ":2: a class name of 256 characters"),
        pytest.param(HEAD + "a" * 140_000, ":2: a value longer", id="long"),
        ("sep=;\ntext;label\na;x\n", "remove this line, which Excel adds, and save"),
        (HEAD + "a,x\nText,label\nb,x\n", ":3: the first line of the table again"),
        (LFS, "a Git LFS pointer; run `git lfs pull`; expected a table"),
        (HTML, "an HTML page (a failed download?)"),
        (b"PK\3\4" + bytes(40), "a ZIP archive; unpack it; expected a table"),
        (b'[{"text": "a"}]', "a JSON document"),
        (HEAD, "no row below its first line"),
        ("\n", ":1: no column text and label among none"),
        ("", "the file is empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: pathlib.Path, content, words: str) -> None:
    path = _write(tmp_path, content)
    assert f"{path}" in _fault(path)
    assert words in _fault(path)


def test_all_faulty_rows_are_named(tmp_path: pathlib.Path) -> None:
    rows = [f"a,{k}" if k % 2 else f"a,b,{k}" for k in range(40)]
    message = _fault(_write(tmp_path, HEAD + "\n".join(rows)))
    assert message.startswith("20 faults")
    assert "and 10 more" in message
    assert [f"train.csv:{k}:" in message for k in (2, 4, 20, 22)] == [1, 1, 1, 0]
    many = _write(tmp_path, HEAD + "a\n" * 5000)
    with pytest.raises(DataError, match="1000 faulty rows; the rest is not read"):
        table_files.read_table(many, tmp_path, Faults())


def test_what_nobody_sees_makes_no_other_column_or_class(tmp_path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))
    labels = [nfc, nfd, f" {nfc} ", f"{nfc}\u200b", f"\ufeff{nfd}"]
    labels += [f"ca\xadf{nfc[3:]}", f"\u200f{nfc}\u200e", f"{nfc}\u200d", f"{nfc}\xa0"]
    text = "\ufeff\ufeffText , LABEL\u200b,id,\n"
    path = _write(tmp_path, text + "".join(f"a,{n},1,\n" for n in labels))
    assert _read(path) == {nfc: [("a", line) for line in range(2, 11)]}
    faults = Faults()
    table_files.read_table(path, tmp_path, faults)
    assert faults.unused == [f"{path} (columns '', 'id')"]


def test_case_makes_no_second_class(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "text" / "x"
    folder.mkdir(parents=True)
    _write(folder, HEAD + "a,cat\nb,Cat\n")
    with pytest.raises(DataError, match="'cat' and 'Cat' read the same"):
        registry.build(Folders(root=str(tmp_path)), 0, 0)
    _write(folder, HEAD + "a,fire_truck\nb,fire_truck\n")
    (folder / "test.csv").write_text(HEAD + "a,Fire truck\n")
    with pytest.raises(
        DataError, match="'Fire truck' in 'test' and 'fire_truck' in 'train' read"
    ):
        registry.build(Folders(root=str(tmp_path)), 0, 0)


def test_a_row_without_text_is_a_sample_that_cannot_be_read(tmp_path) -> None:
    path = _write(tmp_path, HEAD + "a,x\n ,x\n")
    faults = Faults()
    _, empty = table_files.read_table(path, tmp_path, faults)["x"]
    assert not faults.errors
    assert empty.describe() == "train.csv:3"
    with pytest.raises(DataError, match="train.csv:3: a row without text; add some"):
        empty.load(MODALITIES["text"], helpers.make_spec(tmp_path))


def test_whatever_is_written_is_read_with_its_line(tmp_path: pathlib.Path) -> None:
    draw = random.Random(0)
    pieces = [
        "a",
        "b c",
        ",",
        '"',
        '""',
        "\n",
        "\r\n",
        ";",
        "größer",
        "\u2028",
        "'",
        "#",
    ]
    for _ in range(200):
        rows = []
        for _ in range(draw.randint(1, 6)):
            text = "".join(draw.choices(pieces, k=draw.randint(1, 8)))
            rows.append((f"<{text}>", draw.choice("xyz")))
        written = io.StringIO()
        ending = draw.choice(["\n", "\r\n"])
        table = csv.writer(written, lineterminator=ending)
        table.writerow(("text", "label"))
        wanted: dict[str, list[tuple[str, int]]] = {}
        for text, label in rows:
            line = written.getvalue().count("\n") + 1
            wanted.setdefault(label, []).append((text, line))
            table.writerow((text, label))
        content = written.getvalue()
        path = _write(tmp_path, content)
        assert _read(path) == wanted
        # one field more in any row is found, at its line
        place = draw.randrange(len(rows))
        line = [r for each in wanted.values() for r in each]
        line = sorted(number for _, number in line)[place]
        parts = [content[: _offset(content, line)], content[_offset(content, line) :]]
        broken = _write(tmp_path, f"{parts[0]}more,{parts[1]}")
        words = f"train.csv:{line}: expected 2 fields in line {line}, found 3"
        assert words in _fault(broken)


def _offset(content: str, line: int) -> int:
    return len("\n".join(content.split("\n")[: line - 1])) + (line > 1)


ROWS = [('a, "b"\nc', "x"), ("größer", "caf\xe9"), ("d", "7"), ("e", "x")]


@pytest.mark.parametrize("suffix", table_files.SUFFIXES)
def test_every_form_gives_the_same_rows(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    dicts = [{"id": 1, "label": label, "text": text} for text, label in ROWS]
    if suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["id", "label", "text"])
            table.writeheader()
            table.writerows(dicts)
    elif suffix == ".jsonl":
        dicts[2]["label"] = 7
        path.write_text("\n".join(map(json.dumps, dicts)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(dicts), path)
    found = {k: [text for text, _ in rows] for k, rows in _read(path).items()}
    texts = [text for text, _ in ROWS]
    assert found == {"x": [texts[0], texts[3]], "caf\xe9": [texts[1]], "7": [texts[2]]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a"}', "no column label among 'text'"),
        ('{"text": "a", "lable": "x"}', "rename 'lable' to 'label'"),
        ('{"text": "a", "label": null}', "empty label"),
        (
            '{"text": "a", "label": 1.5}',
            "label is 1.5, of type float; expected text or",
        ),
        ('{"text": "a", "label": true}', "label is True, of type bool"),
        ('{"text": "a", "label": ["x"]}', "of type list; expected text or int"),
        ('{"text": 3, "label": "x"}', "text is 3, of type int; expected text"),
        ('{"text": "a", "label": "x", "label": "y"}', "columns 'label' stand there"),
        ('{"text": "\\ud800", "label": "x"}', "half of a surrogate pair"),
        ('{"text": "a\\u0000", "label": "x"}', "text has a NUL"),
        ('["a", "x"]', "an array; expected one JSON object a line"),
        ('"a"', "str; expected one JSON object a line"),
        ('{"text": "a",', "no JSON ("),
        pytest.param("[" * 100_000, "no JSON (", id="deep"),
        pytest.param(f'{{"label": {"1" * 5000}}}', "no JSON (", id="long"),
    ],
)
def test_a_wrong_object_is_named(tmp_path, line: str, words: str) -> None:
    good = '{"text": "a", "label": "x"}'
    path = _write(tmp_path, f"{good}\n\n{line}\n{good}\n", ".jsonl")
    message = _fault(path)
    assert message.startswith(f"{path}:3: ")
    assert words in message


def test_indices_of_a_parquet_table_are_named_as_its_schema_says(tmp_path) -> None:
    label = {"names": ["ape", "bee"], "_type": "ClassLabel"}
    info = json.dumps({"info": {"features": {"label": label}}})
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    path = tmp_path / "train.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), path)
    assert "train.parquet:3: empty label" in _fault(path)
    table = table[:2].replace_schema_metadata({"huggingface": info})
    pq.write_table(table, path)
    assert _read(path) == {"bee": [("a", 1)], "ape": [("b", 2)]}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"]}, "no column label among 'text'"),
        ({"text": ["a"], "label": [1.5]}, ":1: label is 1.5, of type float"),
        ({"text": ["a", "b"], "label": ["x", None]}, ":2: empty label"),
        ({"text": [b"a"], "label": ["x"]}, ":1: text is b'a', of type bytes"),
        ({"text": ["a"], "lable": ["x"]}, "rename 'lable' to 'label'"),
    ],
)
def test_a_wrong_parquet_table_is_named(tmp_path, columns, words: str) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table(columns), path)
    assert words in _fault(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path}: cannot be decoded" in _fault(path)


def test_a_table_of_an_unknown_form_is_refused(tmp_path: pathlib.Path) -> None:
    path = _write(tmp_path, HEAD, ".tsv")
    assert "expected one of .csv, .jsonl, .parquet: convert or rename it" in _fault(
        path
    )


@pytest.mark.skipif(not CASES.is_dir(), reason="the reported tables are not here")
@pytest.mark.parametrize("name", ["label_first", "label_last"])
def test_reported_tables(name: str) -> None:
    path = CASES / "05-unquoted-comma" / f"{name}.csv"
    assert "found 3; quote a value that contains a comma" in _fault(path)
