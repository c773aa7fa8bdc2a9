"""Tables of the user's own: what is read from CSV, TSV, Parquet and Excel, and how each wrong cell is named."""

import csv
import io
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subclass_kd.data.cells import read_header
from subclass_kd.data.findings import Findings
from subclass_kd.data.tabular import read
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study

SIX = [f"{name}.png" for name in "abcdef"]
HEADER = "path,class,subclass,split,group,weight,difficulty"
GOOD = [
    "a.png,sick,viral,train,p1,1,0.5",
    "b.png,sick,bacterial,Test,p2,0.5,-1",
    "c.png,well,well,val,,0,2e1",
]
VOTES = {"column": "n", "annotators": 3}


@pytest.fixture
def folder(tmp_path):
    for name in SIX:
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def load(path, **content):
    findings = Findings()
    data = {"kind": "table", "table": str(path), **content.pop("data", {})}
    try:
        header = read_header(path)
    except UserError:
        header = []
    named = {key: key for key in ("weight", "difficulty") if key in header}  # used where the study names them only
    data["columns"] = named | data.get("columns", {})
    table = read(make_study({"data": data, **content}), findings)
    return table, findings


def write(folder, *lines, name="labels.csv"):
    (folder / name).write_bytes("".join(f"{line}\n" for line in lines).encode())
    return folder / name


def refused(path, **content):
    with pytest.raises(UserError) as caught:
        load(path, **content)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def only_error(findings, kind):
    assert findings.counts == {("error", kind): 1}, findings.kept
    return findings.kept[0]


# What is read


def test_every_column_becomes_what_it_says(folder):
    path = write(folder, HEADER, *GOOD)
    table, findings = load(path)
    assert not findings.kept
    assert (table.where, table.root, len(table)) == (str(path), folder, 3)
    assert table.names == SIX[:3]
    assert table.classes == ["sick", "sick", "well"]
    assert table.subclasses == ["viral", "bacterial", "well"]
    assert table.splits == ["train", "test", "validation"]
    assert table.groups == ["p1", "p2", ""]
    assert table.weights.tolist() == [1, 0.5, 0]
    assert table.difficulty.tolist() == [0.5, -1, 20]
    assert (table.rows.dtype, table.rows.tolist()) == (np.int64, [2, 3, 4])
    assert table.votes is None
    assert table.place(1) == f"{path}, row 3"


def test_columns_have_the_names_that_the_study_says(folder):
    path = write(folder, "class,Bild,Befund,Patient", "x,a.png,krank,1", "y,b.png,gesund,2")
    table, _ = load(path, data={"columns": {"path": "Bild", "class": "Befund", "group": "Patient"}})
    assert (table.names, table.classes, table.groups) == (["a.png", "b.png"], ["krank", "gesund"], ["1", "2"])
    assert table.splits is table.weights is table.difficulty is None


def test_a_class_alone_is_its_own_subclass(folder):
    table, _ = load(write(folder, "path,class", "a.png,x", "b.png,y"))
    assert table.subclasses == table.classes == ["x", "y"]


def test_a_hierarchy_lets_subclasses_stand_alone(folder):
    path = write(folder, "path,subclass", "a.png,x", "b.png,y")
    table, _ = load(path, hierarchy={"one": ["x"], "two": ["y"]})
    assert (table.classes, table.subclasses) == (None, ["x", "y"])
    error = refused(path)
    assert (error.where, error.found) == ('key "hierarchy"', f"none, and no class in {path}")


def test_groups_that_are_all_empty_are_none(folder):
    assert load(write(folder, "path,class,group", "a.png,x,", "b.png,y, "))[0].groups is None
    assert load(write(folder, "path,class,group", "a.png,x,", "b.png,y, P 1 "))[0].groups == ["", "P 1"]


def test_images_may_lie_in_another_folder_and_paths_be_those_of_windows(folder, tmp_path_factory):
    (folder / "sub").mkdir()
    (folder / "sub/g.png").write_bytes(b"x")
    lines = ["path,class", "sub\\g.png,x", "./a.png,y", f"{folder}/b.png,y"]
    path = write(tmp_path_factory.mktemp("tables"), *lines)
    table, findings = load(path, data={"root": str(folder)})
    assert not findings.kept
    assert table.names == ["sub/g.png", "a.png", "b.png"]
    assert load(path)[1].counts == {("error", "missing file"): 2, ("error", "path outside the root"): 1}


FORMATS = {
    "bom.csv": lambda text: b"\xef\xbb\xbf" + text,
    "dos.csv": lambda text: text.replace(b"\n", b"\r\n"),
    "mac.csv": lambda text: text.replace(b"\n", b"\r"),
    "quoted.csv": lambda text: b"".join(b'"' + line.replace(b",", b'","') + b'"\n' for line in text.splitlines()),
    "no_end.csv": lambda text: text.rstrip(b"\n"),
    "gaps.csv": lambda text: text + b"\n\n,,,,,,\n",
    "CAPITALS.CSV": lambda text: text,
    "tabs.tsv": lambda text: text.replace(b",", b"\t"),
    "tabs.txt": lambda text: text.replace(b",", b"\t"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_csv_and_tsv_as_programs_write_them_read_alike(folder, name):
    plain = write(folder, HEADER, *GOOD)
    path = folder / name
    path.write_bytes(FORMATS[name](plain.read_bytes()))
    assert same(load(path), load(plain))


def same(first, second):
    (one, findings), (other, others) = first, second
    assert findings.errors == others.errors == 0
    columns = ("names", "classes", "subclasses", "splits", "groups")
    arrays = ("weights", "difficulty", "rows")
    return (
        all(getattr(one, column) == getattr(other, column) for column in columns)
        and all(np.array_equal(getattr(one, column), getattr(other, column)) for column in arrays)
        and (one.votes is None) == (other.votes is None)
        and (one.votes is None or one.votes.positive.tolist() == other.votes.positive.tolist())
        and (one.votes is None or one.votes.annotators.tolist() == other.votes.annotators.tolist())
    )


def write_parquet(path, header, rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: [row[place] for row in rows] for place, name in enumerate(header)}), path)


def write_excel(path, header, rows):
    workbook = pytest.importorskip("openpyxl").Workbook()
    for row in [header, *rows]:
        workbook.active.append(row)
    workbook.create_sheet("another").append(["nothing"])
    workbook.save(path)


@pytest.mark.parametrize("votes", [None, {"column": "n", "annotators": "of"}])
@pytest.mark.parametrize(("write_it", "name"), [(write_parquet, "t.parquet"), (write_excel, "t.xlsx")])
def test_numbers_truths_and_gaps_of_parquet_and_excel_read_as_their_text(folder, write_it, name, votes):
    header = ["path", "class", "subclass", "split", "group", "weight", "difficulty", "n", "of", "seen"]
    rows = [
        ("a.png", 0, "0 low", "train", 17.0, 1.0, 0.5, 1, 3.0, True),
        ("b.png", 0, "0 high", "train", None, 0.25, -1.0, 1.0, 3.0, False),
        ("c.png", 1, "1", "test", 4.0, 3.0, 1e-07, 3.0, 4.0, True),
    ]
    text = [
        ",".join(header),
        "a.png,0,0 low,train,17,1,0.5,1,3,True",
        "b.png,0,0 high,train,,0.25,-1,1,3,False",
        "c.png,1,1,test,4,3,1e-07,3,4,True",
    ]
    write_it(folder / name, header, rows)
    study = {"votes": votes | {"classes": ["0", "1"]}} if votes else {}
    one, _ = loaded = load(folder / name, **study)
    assert same(loaded, load(write(folder, *text), **study))
    assert one.groups == ["17", "", "4"]
    if votes is None:
        assert one.classes == ["0", "0", "1"]
        by_truth, _ = load(folder / name, data={"columns": {"class": "seen", "subclass": "subclass"}})
        assert by_truth.classes == ["True", "False", "True"]
    else:
        assert (one.classes, one.subclasses) == (None, None)
        assert one.votes.positive.tolist() == [1, 1, 3]
        assert one.votes.annotators.tolist() == [3, 3, 4]


def test_an_excel_row_has_the_number_that_excel_shows(folder):
    rows = [("a.png", "x"), (None, None), ("b.png", None), ("c.png", "y")]
    write_excel(folder / "t.xlsx", ["path", "class"], rows)
    table, findings = load(folder / "t.xlsx")
    assert table.rows.tolist() == [2, 5]
    assert only_error(findings, "empty label").where.endswith('t.xlsx, row 4, column "class"')


def test_an_excel_formula_counts_by_the_value_stored_with_it(folder):
    write_excel(folder / "t.xlsx", ["path", "class"], [("a.png", "=1+1"), ("b.png", "y")])
    _, findings = load(folder / "t.xlsx")  # openpyxl stores no values
    assert only_error(findings, "empty label").where.endswith('row 2, column "class"')


@pytest.mark.parametrize(("name", "package"), [("t.parquet", "pyarrow"), ("t.xlsx", "openpyxl")])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(folder, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    (folder / name).write_bytes(b"PK")
    assert str(refused(folder / name)).endswith("Install it: pip install 'subclass-kd[tables]'")


# Files that are no tables


@pytest.mark.parametrize(
    ("name", "content", "where", "found"),
    [
        ("t.csv", b"", "t.csv", "an empty file"),
        ("t.csv", b"\n\npath,class\n", "t.csv, row 1", "no names of columns"),
        ("t.csv", b",,\na.png,x,\n", "t.csv, row 1", "no names of columns"),
        ("t.csv", b"path,class\n", "t.csv", "a header without rows"),
        ("t.csv", b"path,class\n\n,\n", "t.csv", "a header without rows"),
        ("t.csv", b"path,class,path\na.png,x,b.png\n", "t.csv, row 1", 'two columns of the name "path"'),
        ("t.csv", b"path,class\na.png,x\nb.png,\xe4\n", "t.csv, line 3", "byte 0xe4 at place 7 of the line"),
        ("t.csv", "path,class\na.png,x\n".encode("utf-16"), "t.csv, line 1", "byte 0xff at place 1 of the line"),
        ("t.csv", "path,class\na.png,x\n".encode("utf-16-le"), "t.csv, line 1", "a NUL byte"),
        ("t.csv", b"path,class\na.png,x\nb.png,\0\n", "t.csv, line 3", "a NUL byte"),
        ("t.csv", b'path,class\na.png,x\nb.png,"y\nc.png,x\n', "t.csv, row 3", "a quote that is not closed"),
        ("t.csv", b'path,class\na.png,"x" y\n', "t.csv, row 2", "a cell with text after its closing quote"),
        ("t.csv", b"path,class\na.png," + b"x" * 131_073, "t.csv, row 2", "a cell of more than 131072 characters"),
        ("t.parquet", b"PAR1 not", "t.parquet", "a file that is no Parquet"),
        ("t.parquet", b"", "t.parquet", "an empty file"),
        ("t.xlsx", b"not a zip", "t.xlsx", "a file that is no Excel workbook"),
        ("t.xls", b"x", "t.xls", 'a file in ".xls"'),
        ("t", b"x", "t", "a file name without a suffix"),
    ],
)
def test_a_file_that_is_no_table_is_refused(folder, name, content, where, found):
    (folder / name).write_bytes(content)
    error = refused(folder / name)
    assert error.where == f"{folder}/{where}"
    assert error.found.startswith(found)


def test_a_table_that_is_not_there_is_refused(folder):
    assert refused(folder / "nowhere.csv").found == "no such file"
    assert refused(folder).found == "a folder"
    with pytest.raises(UserError, match=r'key "data.table": found nothing'):
        read(make_study({"data": {"kind": "table"}}), Findings())
    error = refused(write(folder, HEADER, *GOOD), data={"root": str(folder / "nowhere")})
    assert error.where == 'key "data.root"'
    error = refused(write(folder, HEADER, *GOOD), data={"pattern": "(?P<group>.)"})
    assert error.where == 'key "data.pattern"'


def test_a_table_that_may_not_be_read_is_refused(folder, monkeypatch):
    path = write(folder, HEADER, *GOOD)

    def deny(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    for method in ("open", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(f"pathlib.Path.{method}", deny)
            assert "Permission denied" in refused(path, data={"root": str(folder)}).found
    for name in ("x" * 300, "x\0"):
        assert refused(folder / f"{name}.csv", data={"root": str(folder)}).where.startswith(str(folder))
        assert refused(path, data={"root": str(folder / name)}).where == 'key "data.root"'


def test_parquet_columns_of_lists_are_refused(folder):
    write_parquet(folder / "t.parquet", ["path", "class"], [("a.png", ["x"]), ("b.png", ["y"])])
    assert refused(folder / "t.parquet").where == f'{folder}/t.parquet, column "class"'


# Columns


@pytest.mark.parametrize(
    ("header", "columns", "where", "parts"),
    [
        ("file,class", {}, "labels.csv, row 1", ('no column "path" in "file", "class"', "{path: NAME}")),
        ("path;class", {}, "labels.csv, row 1", ("Separate cells by commas",)),
        ("path,klass", {"class": "clas"}, 'key "data.columns.class"', ('"clas", which', '"path", "klass"', '"klass"?')),
        ("path,", {"class": ""}, 'key "data.columns.class"', ('""', '"path"')),
        ("path,x", {}, "labels.csv, row 1", ("no column of classes, subclasses or votes",)),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there_is_named(folder, header, columns, where, parts):
    error = refused(write(folder, header, "a.png,x", "b.png,y"), data={"columns": columns})
    assert error.where.endswith(where)
    assert all(part in str(error) for part in parts), str(error)


@pytest.mark.parametrize(("key", "column"), [("split", "splits"), ("group", "groups"), ("class", "classes")])
def test_a_column_of_a_key_s_name_is_not_used_where_the_study_says_null(folder, key, column):
    """A column "split" may number folds: what cannot be a split is then no error."""
    path = write(folder, "path,class,subclass,split,group", "a.png,a,x,0,p1", "b.png,a,y,1,p2", "c.png,b,z,2,p3")
    columns = {"split": None, key: None}
    table, findings = load(path, data={"columns": columns}, hierarchy={"a": ["x", "y"], "b": ["z"]})
    assert not findings.kept
    assert getattr(table, column) is table.splits is None
    assert table.subclasses == ["x", "y", "z"]


def test_empty_names_of_columns_that_are_not_used_do_no_harm(folder):
    assert len(load(write(folder, ",path,class,", "0,a.png,x,", "1,b.png,y,"))[0]) == 2


# Cells


CELLS = [
    ("path", "", "empty path", "an empty cell", ""),
    ("path", "  ", "empty path", "an empty cell", ""),
    ("path", "x.png", "missing file", 'no file "x.png"', ""),
    ("path", "d.jpg", "missing file", 'no file "d.jpg"', 'Did you mean "d.png"?'),
    ("path", "../x.png", "path outside the root", '"../x.png"', ""),
    ("path", "/etc/passwd", "path outside the root", '"/etc/passwd"', ""),
    ("path", "a.png", "listed with other labels", '"a.png", which row 2 lists with other labels', ""),
    ("path", "b.png", "listed twice", '"b.png", which row 3 lists too', ""),
    ("path", "./b.png", "listed twice", '"b.png", which row 3 lists too', ""),
    ("path", '"d\n.png"', "characters in path", r'"d\n.png"', ""),
    ("class", "", "empty label", "an empty cell", ""),
    ("class", " ", "empty label", '" "', ""),
    ("class", "NA", "empty label", '"NA", as programs write a missing value', "Give the label or remove the row;"),
    ("class", "nan", "empty label", '"nan", as', "Give"),
    ("subclass", "None", "empty label", '"None", as', "Give"),
    ("class", '"si\nck"', "characters in label", r'"si\nck"', ""),
    ("class", "si\x1bck", "characters in label", r'"si\x1bck"', ""),
    ("class", " sick", "blanks around label", '" sick"', ""),
    ("class", "sick\u00a0", "blanks around label", '"sick\u00a0"', ""),
    ("class", "=cmd()", "label a spreadsheet would run", '"=cmd()"', "Begin it with a letter."),
    ("class", "+x", "label a spreadsheet would run", '"+x"', ""),
    ("class", "-x", "label a spreadsheet would run", '"-x"', ""),
    ("class", "@SUM(A1)", "label a spreadsheet would run", '"@SUM(A1)"', ""),
    ("class", "#N/A", "spreadsheet error", '"#N/A"', ""),
    ("class", "x" * 101, "long label", '101 characters, "xxx', ""),
    ("subclass", "", "empty label", "an empty cell", ""),
    ("subclass", "-", "label a spreadsheet would run", '"-"', ""),
    ("split", "", "split", "an empty cell", ""),
    ("split", "holdout", "split", '"holdout"', ""),
    ("group", "p\x07", "characters in group", r'"p\x07"', ""),
    ("weight", "", "weight", "an empty cell", ""),
    ("weight", "NaN", "weight", '"NaN"', ""),
    ("weight", "inf", "weight", '"inf"', ""),
    ("weight", "1e999", "weight", '"1e999"', ""),
    ("weight", "-0.1", "weight", '"-0.1"', ""),
    ("weight", "heavy", "weight", '"heavy"', ""),
    ("weight", "1_0", "weight", '"1_0"', ""),
    ("difficulty", "", "difficulty", "an empty cell", ""),
    ("difficulty", "nan", "difficulty", '"nan"', ""),
    ("difficulty", "-inf", "difficulty", '"-inf"', ""),
    ("difficulty", "hard", "difficulty", '"hard"', ""),
]


@pytest.mark.parametrize(("column", "cell", "kind", "found", "remedy"), CELLS)
def test_a_wrong_cell_is_named_by_row_and_column_and_its_row_left_out(folder, column, cell, kind, found, remedy):
    # A row like row 3, so that only the cell is wrong.
    last = {"path": "d.png", "class": "sick", "subclass": "bacterial", "split": "train", "group": "p4", "weight": "1"}
    path = write(folder, HEADER, *GOOD, ",".join((last | {"difficulty": "1"} | {column: cell}).values()))
    table, findings = load(path)
    error = only_error(findings, kind)
    assert error.where == f'{path}, row 5, column "{column}"'
    assert error.found.startswith(found)
    assert error.remedy.startswith(remedy)
    assert table.names == SIX[:3]
    assert table.rows.tolist() == [2, 3, 4]
    assert all(len(part) == 3 for part in (table.splits, table.groups, table.weights, table.difficulty))


def test_negative_numbers_are_labels(folder):
    table, findings = load(write(folder, "path,class", "a.png,-1", "b.png,+1"))
    assert table.classes == ["-1", "+1"]
    assert not findings.kept


@pytest.mark.parametrize(("row", "cells"), [("d.png", 1), ("d.png,sick,x", 3), ("d.png,x,y,z", 4)])
def test_a_row_with_other_cells_than_the_header_is_named(folder, row, cells):
    path = write(folder, "path,class", "a.png,sick", row, "", "b.png,well", 'c.png,"sick"')
    table, findings = load(path)
    error = only_error(findings, "cells in a row")
    assert (error.where, error.found, error.expected) == (f"{path}, row 3", f"{cells} cells", "2, as in the header")
    assert table.rows.tolist() == [2, 5, 6]


def test_a_cell_of_several_lines_is_one_row_as_in_a_spreadsheet(folder):
    path = write(folder, "path,class,note", 'a.png,x,"one\ntwo\nthree"', "b.png,,", "c.png,y,")
    table, findings = load(path)
    assert table.rows.tolist() == [2, 4]
    assert only_error(findings, "empty label").where == f'{path}, row 3, column "class"'


def test_a_subclass_under_two_classes_names_a_row_of_each(folder):
    rows = ["a.png,sick,x", "b.png,sick,x", "c.png,well,y", "d.png,well,x", "e.png,sick,y", "f.png,well,y"]
    path = write(folder, "path,class,subclass", *rows)
    table, findings = load(path)
    assert findings.counts == {("error", "subclass under two classes"): 2}
    first, second = findings.kept
    assert first.where == f'{path}, row 5, column "class"'
    assert first.found == 'subclass "x" of class "well" (1 of its rows)'
    assert first.expected == f'one class for it: "sick" at {path}, row 2, column "class" (2 rows)'
    assert second.where == f'{path}, row 6, column "class"'
    assert table.rows.tolist() == [2, 3, 4, 7]


@pytest.mark.parametrize("other", ["normal", "N\u00f3rmal", "Nor mal", "\uff2eormal"])
def test_labels_that_look_alike_are_an_error_as_in_folders(folder, other):
    path = write(folder, "path,class", "a.png,Normal", "b.png,sick", f"c.png,{other}")
    error = only_error(load(path)[1], "labels alike")
    assert error.where == f'{path}, column "class"'
    assert sorted(error.found.split(" and ")) == sorted(['"Normal" (row 2)', f'"{other}" (row 4)'])


def test_labels_that_differ_by_more_than_accents_are_two(folder):
    """Liver and cancer, in Japanese: Unicode writes the difference as a mark that combines, as it does an accent."""
    path = write(folder, "path,class", "a.png,\u304b\u3093", "b.png,\u304c\u3093", "c.png,T1", "d.png,T1+")
    table, findings = load(path)
    assert (len(set(table.classes)), findings.kept) == (4, [])


@pytest.mark.parametrize("text", ["NA", "nan", "N/A", "NULL", "None", " "])
def test_a_group_that_is_missing_is_none(folder, text):
    path = write(folder, "path,class,group", f"a.png,x,{text}", f"b.png,y,{text}", "c.png,x,NAN 1")
    table, findings = load(path)
    assert (table.groups, findings.kept) == (["", "", "NAN 1"], [])


def test_weights_that_are_all_zero_are_an_error(folder):
    path = write(folder, "path,class,weight", "a.png,x,0", "b.png,y,0.0")
    table, findings = load(path)
    error = only_error(findings, "weight")
    assert (error.where, error.found) == (f'{path}, column "weight"', "only weights of 0")
    assert table.weights is None


def test_all_that_is_wrong_comes_in_one_pass(folder):
    rows = ["a.png,,train,1", "b.png,x,later,1", "c.png,y,test,NaN", "gone.png,y,test,1", "d.png", "e.png,y,train,1"]
    table, findings = load(write(folder, "path,class,split,weight", *rows))
    assert table.rows.tolist() == [7]
    assert set(findings.counts) == {
        ("error", kind) for kind in ("empty label", "split", "weight", "missing file", "cells in a row")
    }


def test_labels_of_missing_files_are_held_against_each_other_too(folder):
    rows = ["gone1.png,a,x", "gone2.png,a,x", "gone3.png,b,x"]
    _, findings = load(write(folder, "path,class,subclass", *rows))
    assert findings.counts == {("error", "missing file"): 3, ("error", "subclass under two classes"): 1}


# Votes


def test_a_count_of_votes_and_a_number_of_annotators(folder):
    path = write(folder, "path,n", "a.png,0", "b.png,3.0", "c.png, 2 ")
    table, findings = load(path, votes=VOTES)
    assert not findings.kept
    assert table.votes.positive.tolist() == [0, 3, 2]
    assert table.votes.annotators.tolist() == [3, 3, 3]
    assert (table.votes.positive.dtype, table.votes.annotators.dtype) == (np.int64, np.int64)
    assert table.classes is table.subclasses is None


def test_a_column_may_say_how_many_annotators_there_were(folder):
    path = write(folder, "path,n,of", "a.png,0,1", "b.png,3,4")
    assert load(path, votes={"column": "n", "annotators": "of"})[0].votes.annotators.tolist() == [1, 4]


READERS = {"columns": ["r1", "r2", "r3"], "positive": ["bad", "very bad"]}


def test_one_column_an_annotator_and_blanks_are_no_votes(folder):
    path = write(folder, "path,r1,r2,r3", "a.png,bad,very bad,good", "b.png,,good, ", "c.png,good,bad,good")
    table, findings = load(path, votes=READERS | {"classes": ["good", "bad"]})
    assert not findings.kept
    assert table.votes.positive.tolist() == [2, 0, 1]
    assert table.votes.annotators.tolist() == [3, 1, 3]


@pytest.mark.parametrize(
    ("positive", "other"),
    [
        ("malignant", "Malignant"), ("malignant", "malignant\u00a0"), ("b\u00f6sartig", "bosartig"),
        ("very bad", "verybad"), ("1", "1.0"), ("\u304c\u3093", "\u304b\u3099\u3093"),
    ],
)  # fmt: skip
def test_a_positive_label_in_other_writing_is_no_negative_vote(folder, positive, other):
    path = write(folder, "path,r1,r2,r3", f"a.png,{other},{other},{positive}", "b.png,good,good,good")
    table, findings = load(path, votes=READERS | {"positive": [positive], "classes": ["good", "bad"]})
    if other.strip() == positive:
        assert (table.votes.positive.tolist(), findings.kept) == ([3, 0], [])
        return
    assert findings.counts == {("error", "labels alike"): 2}
    assert findings.kept[1].where == f'{path}, row 2, column "r2"'
    assert findings.kept[1].found == f'"{other}", and "{positive}" in votes.positive'
    both = [positive, other]
    table, findings = load(path, votes=READERS | {"positive": both, "classes": ["good", "bad"]})
    assert (table.votes.positive.tolist(), findings.kept) == ([3, 0], [])


def test_a_vote_that_is_missing_is_none_and_is_named(folder):
    path = write(folder, "path,r1,r2,r3", "a.png,bad,NA,NA", "b.png,good,nan,bad", "c.png,None,n/a,null")
    table, findings = load(path, votes=READERS | {"positive": ["bad"], "classes": ["good", "bad"]})
    assert table.votes.positive.tolist() == [1, 1]
    assert table.votes.annotators.tolist() == [1, 2]
    assert findings.counts == {("warning", "counted as no vote"): 1, ("error", "no annotators"): 1}
    listed = '"NA" (2), "None" (1), "n/a" (1), "nan" (1), "null" (1)'
    assert findings.kept[0].found == f"{listed} in votes.columns, counted as no vote"
    path = write(folder, "path,r1,r2,r3", "a.png,none,none,good", "b.png,good,good,good")
    table, findings = load(path, votes=READERS | {"positive": ["none"], "classes": ["good", "bad"]})
    assert (table.votes.positive.tolist(), findings.kept) == ([2, 0], [])


def test_labels_that_nobody_said_are_negative_are_named(folder):
    path = write(folder, "path,r1,r2,r3", "a.png,bad,very bda,unsure", "b.png,Good,unsure,very bad")
    table, findings = load(path, votes=READERS | {"classes": ["good", "bad"]})
    assert table.votes.positive.tolist() == [1, 1]
    (finding,) = findings.kept
    assert (finding.severity, finding.kind) == ("warning", "counted as negative")
    assert finding.found == '"unsure" (2), "very bda" (1) in votes.columns, counted as negative'


@pytest.mark.parametrize(
    ("votes", "key", "found"),
    [
        ({}, "votes", "no columns"),
        ({"column": "n"}, "votes.annotators", "nothing"),
        ({"annotators": 3}, "votes.column", "nothing"),
        ({"columns": ["r1"]}, "votes.positive", "nothing"),
        ({"positive": ["bad"]}, "votes.columns", "nothing"),
        ({"column": "n", "positive": ["bad"]}, "votes", "votes.column and votes.positive"),
        (VOTES | READERS, "votes", "votes.column and votes.annotators and votes.columns and votes.positive"),
        ({"column": "n", "annotators": 0}, "votes.annotators", "0"),
        ({"columns": ["r1", "r1"], "positive": ["bad"]}, "votes.columns", '"r1" twice'),
        ({"column": "m", "annotators": 3}, "votes.column", '"m", which is no column'),
        ({"column": "n", "annotators": "off"}, "votes.annotators", '"off", which is no column'),
        ({"columns": ["r1", "r9"], "positive": ["bad"]}, "votes.columns", '"r9", which is no column'),
        ({"columns": ["r1"], "positive": ["bad", "evil"]}, "votes.positive", '"evil", which no cell'),
    ],
)
def test_votes_that_are_not_described_are_refused_by_key(folder, votes, key, found):
    path = write(folder, "path,n,of,r1", "a.png,1,3,bad", "b.png,1,3,good")
    error = refused(path, votes=votes)
    assert error.where == f'key "{key}"'
    assert error.found.startswith(found)


def test_a_positive_label_that_no_cell_holds_is_told_those_that_are_there(folder):
    path = write(folder, "path,r1,r2", "a.png,bad,good", "b.png,good,")
    error = refused(path, votes={"columns": ["r1", "r2"], "positive": ["badd"]})
    assert error.expected == 'labels found there: "bad", "good"'
    assert error.remedy == 'Did you mean "bad"?'


@pytest.mark.parametrize(
    ("n", "of", "column", "kind", "found"),
    [
        ("many", "3", "n", "vote count", '"many"'),
        ("1.5", "3", "n", "vote count", '"1.5"'),
        ("", "3", "n", "vote count", "an empty cell"),
        ("-1", "3", "n", "vote count", '"-1"'),
        ("nan", "3", "n", "vote count", '"nan"'),
        ("1e2", "3", "n", "vote count", '"1e2"'),
        ("9" * 30, "3", "n", "vote count", '"999'),
        ("\u0663", "3", "n", "vote count", '"\u0663"'),
        ("4", "3", "n", "more votes than annotators", "4 votes"),
        ("1", "0", "of", "no annotators", "0"),
        ("1", "few", "of", "vote count", '"few"'),
        ("3", "", "of", "vote count", "an empty cell"),
    ],
)
def test_a_wrong_count_of_votes_is_named_by_row_and_column(folder, n, of, column, kind, found):
    path = write(folder, "path,n,of", "a.png,1,3", f"b.png,{n},{of}", "c.png,3,3")
    table, findings = load(path, votes={"column": "n", "annotators": "of"})
    error = only_error(findings, kind)
    assert error.where == f'{path}, row 3, column "{column}"'
    assert error.found.startswith(found)
    assert table.votes.positive.tolist() == [1, 3]


def test_an_image_that_nobody_voted_on_is_an_error(folder):
    path = write(folder, "path,r1,r2", "a.png,bad,", "b.png,, ", "c.png,good,bad")
    table, findings = load(path, votes={"columns": ["r1", "r2"], "positive": ["bad"], "classes": ["good", "bad"]})
    error = only_error(findings, "no annotators")
    assert (error.where, error.found) == (f"{path}, row 3", "no vote")
    assert table.rows.tolist() == [2, 4]


def test_a_class_beside_votes_must_be_that_of_the_majority(folder):
    rows = ["a.png,good,1,4", "b.png,bad,2,4", "c.png,good,2,4", "d.png,bad,1,4", "e.png,worse,3,4", "f.png,good,4,4"]
    path = write(folder, "path,class,n,of", *rows)
    table, findings = load(path, votes={"column": "n", "annotators": "of", "classes": ["good", "bad"]})
    against, missing, other = (findings.kept[place] for place in (0, 1, 2))
    assert [finding.where for finding in (against, missing, other)] == [
        f'{path}, row {row}, column "class"' for row in (5, 6, 7)
    ]
    assert against.found == '"bad" with 1 of 4 votes for "bad"'
    assert (missing.found, missing.expected) == ('"worse"', '"good" or "bad", the classes that are voted on')
    assert other.found == '"good" with 4 of 4 votes for "bad"'
    assert table.rows.tolist() == [2, 3, 4]
    assert table.classes is None


def test_subclasses_beside_votes_are_passed_over_with_a_warning(folder):
    path = write(folder, "path,subclass,n", "a.png,x,0", "b.png,y,3")
    table, findings = load(path, votes=VOTES)
    assert table.subclasses is None
    assert findings.counts == {("warning", "unused column"): 1}


# Any text, and many rows


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.text(max_size=8), min_size=4, max_size=4), max_size=5), st.booleans())
def test_any_cells_are_read_or_refused(folder, rows, with_votes):
    text = io.StringIO()
    csv.writer(text).writerows([["path", "class", "weight", "n"], *rows])
    path = folder / "any.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    read_or_refused(path, votes=VOTES if with_votes else None)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.sampled_from([".csv", ".tsv", ".parquet", ".xlsx"]))
def test_any_bytes_are_read_or_refused(folder, content, suffix):
    path = folder / f"any{suffix}"
    path.write_bytes(b"path,class\n" + content if suffix == ".csv" else content)
    read_or_refused(path)


def read_or_refused(path, **content):
    try:
        table, findings = load(path, **content)
    except UserError as error:
        str(error).encode()
    else:
        assert len(table) == 0 or set(table.names) <= set(SIX)
        for finding in findings.kept:
            f"{finding.where}{finding.found}{finding.expected}{finding.remedy}".encode()


def test_one_wrong_row_in_a_hundred_thousand_is_named_within_seconds(folder):
    (folder / "many").mkdir()
    for i in range(100):
        (folder / f"many/{i}.png").write_bytes(b"x")
    lines = [f"many/{i}.png,x,{i % 4},{i % 7}" if i < 100 else f"gone/{i}.png,x,1,{i % 7}" for i in range(100_000)]
    lines[76_543] = "gone/76543.png,x,9,1"
    path = write(folder, "path,note,n,group", *lines)
    start = time.process_time()
    table, findings = load(path, votes=VOTES)
    assert time.process_time() - start < 10
    assert len(table) == 100
    assert findings.counts == {("error", "more votes than annotators"): 1, ("error", "missing file"): 99_900}
    assert findings.kept[0].where == f'{path}, row 76545, column "n"'
