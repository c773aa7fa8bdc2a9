"""Patients that DICOM headers name: kept together where nothing else tells groups, numbered, and never written down."""

import io
import json
import re
import sys
import tarfile

import numpy as np
import pytest
from rich.console import Console

from subclass_kd import init
from subclass_kd.data import patients
from subclass_kd.data.check import check_study
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import read_patient
from subclass_kd.data.samples import load_rows, load_samples, resolve_rows
from subclass_kd.display_check import show
from subclass_kd.errors import UserError
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study

pydicom = pytest.importorskip("pydicom")
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian  # noqa: E402

HOSPITAL = "Mercy"  # every identifier begins so


def content(number, patient=None, side=12, syntax=ExplicitVRLittleEndian):
    """Give the bytes of a DICOM file of noise; without an identifier where ``patient`` is None."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = f"1.2.{number + 1}"
    if patient is not None:
        made.PatientID = patient
    made.Rows = made.Columns = side
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = np.random.default_rng(number).integers(0, 256, (side, side), np.uint8).tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def name(number):
    """Scatter files over names that tell nothing, of two classes in turn."""
    return f"{'ab'[number % 2]}/{number * 7919 % 1000:03}.dcm"


def patient(number):
    """Give 20 patients; the files of each are of both classes."""
    return f"{HOSPITAL} {(number // 6 * 7) % 20:04}"


def folder(root, count=120, of=patient, **form):
    for number in range(count):
        (root / name(number)).parent.mkdir(parents=True, exist_ok=True)
        (root / name(number)).write_bytes(content(number, of(number), **form))
    return root


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Give a folder of 120 files of 20 patients."""
    return folder(tmp_path_factory.mktemp("scans"))


@pytest.fixture
def opened(monkeypatch):
    """Give the list of the files whose headers are read, one entry each time; nothing is known from before."""
    patients._read.cache_clear()
    listed = []

    def read(path):
        listed.append(str(path))
        return read_patient(path)

    monkeypatch.setattr(patients, "read_patient", read)
    return listed


def study(root, more=None, **data):
    return make_study({"data": {"kind": "folder", "root": str(root), "size": 12, **data}, **(more or {})})


def rows_of(*arguments, **data):
    findings = Findings()
    return load_rows(study(*arguments, **data), findings), findings


def sides(rows, of=None):
    """Give the patients of each split, as the files themselves were given them."""
    known = {name(number): (of or patient)(number) for number in range(len(rows.table))}
    return [{known[rows.table.names[row]] for row in part} for part in (rows.train, rows.validation, rows.test)]


def found(report, kind):
    return [row["found"] for row in report["findings"] if row["kind"] == kind]


# Groups


def test_images_of_a_patient_are_in_one_split(scans):
    rows, findings = rows_of(scans)
    assert not findings.kept
    parts = sides(rows)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert all(parts)


def test_patients_are_numbered_by_their_first_files(scans):
    rows, _ = rows_of(scans)
    files = sorted((name(number), patient(number)) for number in range(120))
    order = list(dict.fromkeys(patient for _, patient in files))
    assert rows.table.names == [file for file, _ in files]
    assert rows.table.groups == [f"patient-{order.index(patient) + 1:04}" for _, patient in files]
    assert rows.table.groups[0] == "patient-0001"
    assert len(set(rows.table.groups)) == 20


def write_table(folder, lines):
    path = folder / "cases.csv"
    path.write_text("\n".join(["path,class,group", *lines]))
    return make_study({"data": {"kind": "table", "table": str(path), "root": str(folder)}})


def test_a_table_in_any_order_numbers_them_alike(scans):
    by_name = dict(zip(rows_of(scans)[0].table.names, rows_of(scans)[0].table.groups, strict=True))
    table = write_table(scans, [f"{name(k)},{name(k)[0]}," for k in reversed(range(120))])
    rows = load_rows(table, Findings())
    assert dict(zip(rows.table.names, rows.table.groups, strict=True)) == by_name
    assert rows.table.names[0] == name(119)


@pytest.mark.parametrize("side", [12, 300])  # the larger members are read in part
def test_shards_name_them_too(tmp_path, side):
    with tarfile.open(tmp_path / "s-0.tar", "w") as archive:
        for number in range(40):
            for suffix, text in ((".dcm", content(number, patient(number), side)), (".cls", b"%d" % (number % 2))):
                info = tarfile.TarInfo(f"{number:03}{suffix}")
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
    rows = load_rows(make_study({"data": {"kind": "webdataset", "root": str(tmp_path)}}), Findings())
    assert rows.table.groups == [f"patient-{number // 6 + 1:04}" for number in range(40)]


def test_groups_that_are_given_go_before_and_no_header_is_read(scans, opened):
    rows, _ = rows_of(scans, pattern=r"(?P<group>\d)\d\d\.dcm")
    assert set(rows.table.groups) == {*"0123456789"}
    table = write_table(scans, [f"{name(k)},{name(k)[0]},p{k // 5}" for k in range(120)])
    assert len(set(load_rows(table, Findings()).table.groups)) == 24
    assert opened == []


@pytest.mark.parametrize("blank", [None, "", "  ", "ANONYMOUS", "De-Identified", "^", "NA"])
def test_a_file_that_names_nobody_stands_by_itself(tmp_path, blank):
    def of(number):
        return blank if number % 10 == 0 else patient(number)

    rows, _ = rows_of(folder(tmp_path, of=of))
    alone = {name(number) for number in range(0, 120, 10)}
    assert {file for file, group in zip(rows.table.names, rows.table.groups, strict=True) if not group} == alone
    assert len(set(rows.groups.tolist())) == 20 + 12
    report = check_study(study(tmp_path))
    assert found(report, "images without a group") == ["12 of 120 images without a group"]
    assert found(report, "no patients in DICOM") == []


@pytest.mark.parametrize(
    ("identifier", "said"),
    [
        ("ANONYMOUS", "no PatientID, or one without a name, in 60 DICOM files"),
        (None, "no PatientID, or one without a name, in 60 DICOM files"),
        ("Mercy 0001", "one and the same PatientID in 60 DICOM files"),
    ],
)
def test_headers_that_tell_no_patients_apart_are_a_warning(tmp_path, identifier, said):
    report = check_study(study(folder(tmp_path, 60, of=lambda number: identifier)))
    assert (report["data"]["groups"], report["data"]["group_source"]) == (None, None)
    assert (report["errors"], found(report, "no patients in DICOM")) == (0, [said])
    assert HOSPITAL not in json.dumps(report)


# Where groups come from


def test_check_says_what_tells_the_groups(scans):
    report = check_study(study(scans))
    assert report["data"]["group_source"] == "PatientID in the DICOM headers"
    console = Console(file=io.StringIO(), width=200)
    show(console, report)
    assert (
        "No group (patient) is in two splits: 20 groups. They are told by PatientID in the DICOM headers."
        in console.file.getvalue()
    )
    report = check_study(study(scans, pattern=r"(?P<group>\d\d)\d\.dcm"))
    assert report["data"]["group_source"] == "data.pattern"
    table = write_table(scans, [f"{name(k)},{name(k)[0]},p{k // 5}" for k in range(120)])
    assert check_study(table)["data"]["group_source"] == 'column "group"'


def test_init_takes_headers_for_what_they_say_and_no_number_in_a_name_for_a_patient(tmp_path):
    for number in range(60):
        path = tmp_path / "data" / f"{'ab'[number % 2]}/room{number % 7}_{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number, patient(number)))
    text = init.init(tmp_path / "data", measure=False)
    assert "# Groups (patients): 10 by PatientID in the DICOM headers; the study numbers them." in text
    assert "pattern:" not in text
    assert "No patients (groups) were found" not in text


# Privacy


def test_no_file_of_a_run_has_an_identifier(tmp_path, monkeypatch):
    """Nor a digest of one: hospitals count their patients, so that it could be guessed."""
    monkeypatch.setenv("SUBCLASS_KD_CACHE", str(tmp_path / "cache"))
    root = folder(tmp_path / "data")
    network = {"epochs": 1, "batch_size": 16}
    more = {"seeds": 1, "arms": ["scratch"], "student": network, "device": "cpu"}
    run_study(study(root, more), tmp_path / "out")
    written = [path for part in ("out", "cache") for path in (tmp_path / part).rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if HOSPITAL.encode() in path.read_bytes()]
    listed = (tmp_path / "out/samples.csv").read_text()
    assert len(set(re.findall(r"patient-\d{4}", listed))) == 20
    assert HOSPITAL not in init.init(root, measure=False)


# Fingerprints and splits


def test_another_patient_in_a_header_is_other_data(tmp_path):
    """As another group of any source is: what was learned from the old split is not used again."""
    before = load_samples(study(folder(tmp_path)))
    again = load_samples(study(tmp_path))
    assert before.fingerprint == again.fingerprint
    (tmp_path / name(0)).write_bytes(content(0, patient(30)))
    after = load_samples(study(tmp_path))
    assert after.index.fingerprint == before.index.fingerprint  # the pixels are the same
    assert after.fingerprint != before.fingerprint


def test_a_patient_on_both_sides_of_the_given_split_is_an_error_that_names_files(tmp_path):
    for number in range(40):
        path = tmp_path / f"{('train', 'test')[number // 2 % 2]}/{'ab'[number % 2]}/{number:02}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number, f"{HOSPITAL} {number // 2 if number > 3 else 0}"))
    findings = Findings()
    resolve_rows(study(tmp_path), findings)
    (error,) = findings.kept
    assert error.kind == "group on two sides"
    assert error.found == 'group "patient-0001" in train and test, as "train/a/00.dcm" and "test/a/02.dcm"'


# Reading


def test_each_header_is_read_once_for_all_folds_and_again_when_its_file_changes(tmp_path, opened):
    root = folder(tmp_path)
    check_study(study(root, folds=5))
    assert len(opened) == len(set(opened)) == 120
    (root / name(7)).write_bytes(content(7, patient(30)))
    rows_of(root)
    assert opened[120:] == [str(root / name(7))]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_the_identifier_is_read_from_the_header(tmp_path, syntax):
    path = tmp_path / "a.dcm"
    path.write_bytes(content(0, " Mercy 17 ", syntax=syntax))
    assert read_patient(path) == "Mercy 17"
    path.write_bytes(content(0, None, syntax=syntax))
    assert read_patient(path) == ""


def test_what_stands_behind_the_identifier_is_not_read(tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(content(0, "Mercy 17").partition(b"Mercy 17")[0] + b"Mercy 17")
    assert read_patient(path) == "Mercy 17"
    path.write_bytes(b"no DICOM file at all")
    assert read_patient(path) is None


def test_a_damaged_file_is_an_error_and_left_out(scans, tmp_path):
    root = folder(tmp_path)
    (root / name(7)).write_bytes(b"no DICOM file at all")
    findings = Findings()
    rows = resolve_rows(study(root), findings)
    (error,) = findings.kept
    assert (error.severity, error.kind, error.where) == ("error", "unreadable image", str(root / name(7)))
    assert len(rows.table) == 119
    assert len(set(rows.table.groups)) == 20


def test_without_pydicom_the_extra_is_named_once(scans, opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError) as caught:
        rows_of(scans)
    assert caught.value.remedy == "Run pip install 'subclass-kd[dicom]'."


def test_files_with_the_suffix_of_other_images_are_not_opened(tmp_path, opened):
    for number in range(40):
        path = tmp_path / f"{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number, patient(number)))
    assert rows_of(tmp_path)[0].groups is None
    assert opened == []
