"""Users' tables are read strictly; errors are one line that names row and column."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from segclip.batch import plan
from segclip.batch.plan import Ask
from segclip.errors import BadTable
from segclip.files import lines, tables
from segclip.files.captions import COLUMNS, read

ROWS = [("a.jpg", "a red apple"), ("b.jpg", "a mug, blue"), ("c.jpg", "a pen")]


def write(folder: Path, content: str, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    return folder / name


def captions(file: Path) -> list[tuple[str, str]]:
    return [(row.image, row.text) for row in read(file)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'image,caption\na.jpg,a red apple\nb.jpg,"a mug, blue"\nc.jpg,a pen\n'),
        ("t.csv", ('\ufeffImage, Caption\r\na.jpg,a red apple\r\nb.jpg,"a mug, blue"\r\n\r\n'
                   'c.jpg,a pen\r\n')),
        ("t.csv", ',image,caption\n0,a.jpg,a red apple\n1,b.jpg,"a mug, blue"\n2,c.jpg,a pen\n'),
        ("t.csv", ("Unnamed: 0,,image,caption\n0,0,a.jpg,a red apple\n1,1,b.jpg,a mug, "
                  "blue\n2,2,c.jpg,a pen\n")),
        ("t.csv", "image,caption\na.jpg,a red apple\nb.jpg,a mug, blue\nc.jpg,a pen\n"),
        ("t.csv", "a.jpg,a red apple\nb.jpg,a mug, blue\nc.jpg,a pen"),
        ("t.csv", 'image;caption\r"a.jpg";a red apple\rb.jpg;a mug, blue\rc.jpg;a pen'),
        ("t.tsv", "title\tfilepath\na red apple\ta.jpg\na mug, blue\tb.jpg\na pen\tc.jpg\n"),
        ("t.txt", ("image_name| comment_number| comment\na.jpg| 0| a red apple\nb.jpg| 0| a mug, "
                  "blue\nc.jpg|0|a pen\n")),
        ("t.jsonl", ('{"image": "a.jpg", "caption": "a red apple"}\n\n'
                    '{"path": "b.jpg", "text": ["a mug, blue"]}\n'
                    '{"id": 3, "image": "c.jpg", "caption": "a  pen"}')),
    ],
)  # fmt: skip
def test_variants_of_a_table_are_read_alike(tmp_path: Path, name: str, content: str) -> None:
    """Fault 17.18: byte-order marks, pandas' index columns, commas in captions."""
    assert captions(write(tmp_path, content, name)) == ROWS


def test_lines_are_split_only_at_newlines(tmp_path: Path) -> None:
    content = "image,caption\na.jpg,a\u2028red\x85car\nb.jpg,a mug\n"
    assert captions(write(tmp_path, content)) == [("a.jpg", "a red car"), ("b.jpg", "a mug")]


@pytest.mark.parametrize("mark", [",", "\t", "|", ";"])
@pytest.mark.parametrize("closed", ["", '"', ' 6"', '" x', '""'])
@pytest.mark.parametrize("at", [1, 3, 5])
def test_an_open_quote_never_swallows_rows(tmp_path: Path, mark: str, closed: str, at: int) -> None:
    """Fault 17.18: an unclosed quote is an error of its own row, even if a later row closes it."""
    rows = [f"{number}.jpg{mark}a thing" for number in range(1, 7)]
    rows[at - 1] = f'{at}.jpg{mark}"an open thing'
    rows[-1] += closed
    file = write(tmp_path, "\n".join([f"image{mark}caption", *rows]))
    with pytest.raises(BadTable, match=rf"row {at} \(line {at + 1}\).*quote"):
        captions(file)


def test_a_quoted_value_may_span_two_lines(tmp_path: Path) -> None:
    content = 'caption,image\n"a dog,\nrunning",a.jpg\n"say ""hi""",b.jpg\n'
    assert captions(write(tmp_path, content)) == [
        ("a.jpg", "a dog, running"),
        ("b.jpg", 'say "hi"'),
    ]
    swallowed = 'caption,image\n"open,a.jpg\nof 6",b.jpg\n'
    with pytest.raises(BadTable, match=r"row 1 \(line 2\).*quote"):
        captions(write(tmp_path, swallowed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,texts,box\na.jpg,x,1\n",
            "unknown column 'box', did you mean 'boxes'; known columns: image, path, texts",
        ),
        ("image,prompt\na.jpg,x\n", "unknown column 'prompt'; known columns:"),
        ("image,path\na.jpg,a.jpg\n", "both mean 'image'"),
        ("image,texts,text\na.jpg,x,y\n", "both mean 'texts'"),
        ("texts,boxes\nx,\n", "no column 'image' or 'path'"),
        ("image,texts\na.jpg,a mug, blue\n", r"row 1 \(line 2\): 3 values for 2 columns"),
        ("image,texts\n,x\n", "row 1 .*'image': it names no image"),
        ('image,texts\na.jpg, "x; y"\n', "row 1 .*'texts': a blank precedes the quote"),
        (",image\nx,a.jpg\n", "row 1 .*column 1 has no name"),
        ("image,texts\na.jpg,x\0y\n", "row 1 .*'texts': it holds a NUL"),
        ("image,texts\na\0.jpg,x\n", "row 1 .*'image': it holds a NUL"),
        (f"image,texts\na.jpg,{'x' * 140_000}\n", r"row 1 \(line 2\): a value holds more than"),
        ('image,boxes\na.jpg,"1,2,3"\n', "row 1 .*'boxes': expected a box x1,y1,x2,y2"),
        ('image,boxes\na.jpg,"nan,2,3,4"\n', "row 1 .*'boxes'"),
        ('image,boxes\na.jpg,"1e999,2,3,4"\n', "row 1 .*'boxes'"),
        ('image,boxes\nb.jpg,"1,2,3,4"\na.jpg,"[[1,2,3"\n', "row 2 .*'boxes': not JSON"),
        (
            f"image,boxes\na.jpg,{'[' * 100_000}\n",
            "row 1 .*'boxes': not usable JSON: nested too deep",
        ),
        ('image,points\na.jpg,"1,2,0,9"\n', "row 1 .*'points': expected a point"),
    ],
)
def test_an_invalid_table_is_rejected_by_row_and_column(
    tmp_path: Path, content: str, message: str
) -> None:
    """Faults 17.15 and 17.18."""
    with pytest.raises(BadTable, match=message) as caught:
        plan.read(write(tmp_path, content), Ask(("x",)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["a.jpg"]', "expected an object"),
        ("5", "expected an object"),
        ("null", "expected an object"),
        ('"a.jpg"', "expected an object"),
        ("[" * 100_000, "too deep"),
        ('{"a":' * 100_000, "too deep"),
        ('{"image": ' + "9" * 5000 + "}", "not usable JSON"),
        ('{"image": "a.jpg"', "not JSON"),
        ('{"image": 5}', "'image': expected a text, got 5"),
        ('{"image": null}', "'image': it names no image"),
        ('{"image": ["a.jpg"]}', "'image': expected a text"),
        ('{"image": "a\\u0000.jpg"}', "'image': it holds a NUL"),
        ('{"image": "\\ud800.jpg"}', "'image': it holds a lone surrogate"),
        ('{"image": "a.jpg", "texts": ["x", "\\udfff"]}', "'texts': it holds a lone surrogate"),
        ('{"image": "a.jpg", "texts": ["x", 5]}', "'texts': expected a list of texts, got 5"),
        ('{"image": "a.jpg", "texts": 5}', "'texts': expected a list"),
        ('{"image": "a.jpg", "texts": {"x": 1}}', "'texts': expected a list"),
        ('{"image": "a.jpg", "image": "b.jpg"}', "'image' is given twice"),
        ('{"image": "a.jpg", "prompt": "x"}', "unknown column 'prompt'"),
        ('{"image": "a.jpg", "boxes": [[1, 2, 3, NaN]]}', "NaN is not a finite number"),
        ('{"image": "a.jpg", "boxes": [[1, 2, 3, 1e400]]}', "'boxes': expected a box"),
        ('{"image": "a.jpg", "boxes": [[1, 2, 3, 1' + "0" * 400 + "]]}", "'boxes': expected a box"),
        ('{"image": "a.jpg", "boxes": [1, 2, 3, 4]}', "'boxes': expected a box"),
        ('{"image": "a.jpg", "boxes": [[1, 2, 3, true]]}', "'boxes': expected a box"),
        ('{"image": "a.jpg", "boxes": [[1, 2, 3, null]]}', "'boxes': expected a box"),
        ('{"image": "a.jpg", "boxes": [{"x": 1}]}', "'boxes': expected a box"),
    ],
)
def test_an_invalid_json_row_is_rejected_by_row_and_column(
    tmp_path: Path, line: str, message: str
) -> None:
    """Fault 17.15."""
    file = write(tmp_path, f'{{"image": "z.jpg"}}\n\n{line}\n', "t.jsonl")
    with pytest.raises(BadTable, match=rf"row 2 \(line 3\).*{message}") as caught:
        plan.read(file, Ask(("x",)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[]", "no list of images"),
        ("null", "no list of images"),
        ('{"images": 5}', "no list of images"),
        ('{"images": [5]}', "row 1: expected an object"),
        ('{"images": [{}]}', "row 1, column 'filename': no file name"),
        (
            '{"images": [{"filename": "a.jpg", "split": "elsewhere"}]}',
            "row 1, column 'split': unknown split",
        ),
        ('{"images": [{"filename": "a.jpg", "split": "val"}]}', "column 'sentences'"),
        (
            '{"images": [{"filename": "a.jpg", "split": "val", "sentences": ["x"]}]}',
            "row 1: expected an object",
        ),
        ('{"images": [{"id": 1}], "annotations": [{"caption": "x"}]}', "row 1, column 'file_name'"),
        ('{"images": [{"id": [], "file_name": "a"}], "annotations": []}', "row 1, column 'id'"),
        (
            (
                '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, '
                '"caption": "x"}]}'
            ),
            "no image has the id 2",
        ),
        (
            (
                '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, '
                '"caption": 5}]}'
            ),
            "'caption'",
        ),
        ("[" * 100_000, "too deep"),
        ('{"images": [', "not JSON"),
    ],
)
def test_captions_in_json_are_checked_before_use(tmp_path: Path, table: str, message: str) -> None:
    """Fault 17.15, in COCO's and Karpathy's JSON."""
    with pytest.raises(BadTable, match=message):
        captions(write(tmp_path, table, "t.json"))


def test_splits_have_aliases_and_unknown_ones_are_rejected(tmp_path: Path) -> None:
    """Fault 17.18: rows with unknown split values were in no split."""
    content = "image,caption,split\na.jpg,x,Train\nb.jpg,x,validation\nc.jpg,x,TEST\nd.jpg,x,\n"
    assert [row.split for row in read(write(tmp_path, content))] == ["train", "val", "test", ""]
    with pytest.raises(
        BadTable,
        match=r"row 2 \(line 3\), column 'split': unknown split 'held-out'; known splits: train",
    ):
        list(read(write(tmp_path, "image,caption,split\na.jpg,x,train\nb.jpg,x,held-out\n")))


def test_an_empty_table_has_no_rows_and_missing_cells_are_empty(tmp_path: Path) -> None:
    assert list(tables.read(write(tmp_path, ""), COLUMNS)) == []
    assert list(tables.read(write(tmp_path, "image,caption\n,\n"), COLUMNS)) == []
    (row,) = tables.read(write(tmp_path, "image,caption,split\na.jpg\n"), COLUMNS)
    assert (row.text("image"), row.text("caption"), row.values) == ("a.jpg", "", {"image": "a.jpg"})


def test_a_boxes_file_may_hold_only_boxes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(BadTable, match="unknown column 'texts'"):
        plan.read(tmp_path, Ask(("x",)), write(tmp_path, "image,boxes,texts\na.png,,x\n"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
class TestPipes:
    """Fault 17.13: pipes, as in process substitution, are read; endless or silent ones rejected."""

    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Path:
        os.mkfifo(tmp_path / "pipe")
        return tmp_path / "pipe"

    @pytest.mark.parametrize("delay", [0.0, 0.3])
    def test_a_pipe_is_read_to_its_end(self, pipe: Path, delay: float) -> None:
        def late() -> None:
            with pipe.open("wb") as file:  # waits for the reader
                file.write(b"a cat\n")
                file.flush()
                threading.Event().wait(delay)
                file.write(b"a dog\n")

        writer = threading.Thread(target=late)
        writer.start()
        assert lines.read(pipe, "the labels file") == ["a cat", "a dog"]
        writer.join()

    def test_a_table_may_be_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "rows.csv")
        content = "image,caption\na.jpg,a red apple\n"
        writer = threading.Thread(target=lambda: (tmp_path / "rows.csv").write_text(content))
        writer.start()
        assert captions(tmp_path / "rows.csv") == ROWS[:1]
        writer.join()

    def test_a_pipe_without_a_writer_times_out(
        self, pipe: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lines, "PATIENCE", 0.2)
        with pytest.raises(BadTable, match="no data arrived"):
            lines.read(pipe, "the labels file")

    def test_a_pipe_with_a_silent_writer_times_out(
        self, pipe: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lines, "PATIENCE", 0.2)
        writer = os.open(pipe, os.O_RDWR)
        with pytest.raises(BadTable, match="no data arrived"):
            lines.read(pipe, "the labels file")
        os.close(writer)

    def test_a_pipe_whose_writer_has_closed_is_read(self) -> None:
        reader, writer = os.pipe()
        os.write(writer, b"a cat")
        os.close(writer)
        # the path that a shell passes
        assert lines.read(Path(f"/dev/fd/{reader}"), "the labels file") == ["a cat"]
        os.close(reader)

    def test_an_endless_device_is_rejected(
        self, monkeypatch: pytest.MonkeyPatch, pipe: Path
    ) -> None:
        for name in ("/dev/zero", "/dev/urandom"):
            with pytest.raises(BadTable, match=r"is not UTF-8 text|holds more than"):
                lines.read(Path(name), "the labels file")
        monkeypatch.setattr(lines, "STREAM_LIMIT", 1000)
        writer = threading.Thread(target=lambda: pipe.write_bytes(b"a cat\n" * 1000))
        writer.start()
        with pytest.raises(BadTable, match="holds more than"):
            lines.read(pipe, "the labels file")
        writer.join()


@pytest.mark.parametrize("name", [".", "/", "a\0b", "gone.txt", "x" * 5000, ""])
def test_an_invalid_file_name_is_reported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadTable, match=r"cannot be read|is not a valid file name"):
        lines.read(Path(name), "the labels file")


def test_a_line_with_a_nul_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadTable, match="line 2: it holds a NUL"):
        lines.read(write(tmp_path, "a cat\na\0dog\n"), "the labels file")
