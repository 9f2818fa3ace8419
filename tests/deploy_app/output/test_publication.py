"""Results appear all at once or not at all."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pydicom
import pytest
from panreg.failures import Code
from panreg.output.manifest import Manifest
from panreg.output.publication import Publication
from publishing import (
    SLICES,
    exit_code_of,
    failed,
    in_child,
    is_complete,
    is_published,
    names_below,
    objects,
    run,
    status_of,
    write_objects,
)


def test_all_objects_appear_with_their_hashes_and_nothing_else_is_left(places):
    output, work = places
    with Publication(output, work) as publication:
        assert publication.staging.parent == (work or output)
        write_objects(publication.staging)
        assert not (output / "dicom").exists()
        objects = publication.publish()
    assert [found.path for found in objects] == [
        *(f"dicom/registered/registered_{k:04d}.dcm" for k in range(SLICES)),
        "dicom/report_0000.dcm",
    ]
    for found in objects:
        path = output / found.path
        header = pydicom.dcmread(path)
        assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (found.sop_class_uid, found.sop_instance_uid) == (header.SOPClassUID, header.SOPInstanceUID)
    assert publication.page.path == "report.html"
    assert publication.page.sha256 == hashlib.sha256((output / "report.html").read_bytes()).hexdigest()
    assert sorted(os.listdir(output)) == ["dicom", "report.html"]
    assert work is None or not os.listdir(work)


def test_objects_may_come_without_a_page(tmp_path):
    with Publication(tmp_path) as publication:
        write_objects(publication.staging)
        (publication.staging / "report.html").unlink()
        publication.publish()
        assert publication.page is None
    assert os.listdir(tmp_path) == ["dicom"]


def test_a_page_of_somebody_else_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    failure = failed(lambda: run(tmp_path))
    assert (failure.code, "report.html" in failure.message) == (Code.E_OUTPUT, True)
    assert names_below(tmp_path) == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "mine"


def test_leaving_without_publishing_leaves_nothing(places):
    output, work = places
    with Publication(output, work) as publication:
        write_objects(publication.staging)
    assert not os.listdir(output)
    assert work is None or not os.listdir(work)


def test_a_failure_after_publication_takes_it_back(places):
    output, work = places

    def fail_at_last():
        with Publication(output, work) as publication:
            write_objects(publication.staging)
            publication.publish()
            assert is_complete(output)
            raise RuntimeError("the last manifest could not be written")

    with pytest.raises(RuntimeError):
        fail_at_last()
    assert not os.listdir(output)
    assert work is None or not os.listdir(work)


def test_earlier_results_are_refused_and_left_as_they_are(places):
    output, work = places
    run(output, work)
    before = {name: (output / name).read_bytes() for name in names_below(output) if (output / name).is_file()}
    assert failed(lambda: run(output, work)).code is Code.E_OUTPUT
    assert {name: (output / name).read_bytes() for name in names_below(output) if (output / name).is_file()} == before


def test_what_a_killed_run_left_is_removed_before_the_next(places):
    output, work = places
    killed = Publication(output, work).__enter__()
    os.close(killed._lock)  # as the end of a process does
    stale = killed.staging
    write_objects(stale)
    (output / ".panreg.probe").mkdir()
    with Publication(output, work) as publication:
        assert publication.staging == stale
        assert not os.listdir(stale)
    assert not os.listdir(output)


@pytest.mark.hazard("half a result is used")
def test_a_second_run_on_one_output_is_refused_while_the_first_is_at_work(places):
    output, work = places
    with Publication(output, work) as first:
        manifest = Manifest(output)
        write_objects(first.staging)
        assert in_child(lambda: exit_code_of(lambda: run(output, work))) == 60
        assert "Another run" in failed(lambda: run(output, work)).message
        assert (first.staging / "report_0000.dcm").exists()
        assert status_of(output) == "running"
        manifest.succeed(first.publish())
    assert is_published(output)
    shutil.rmtree(output)
    assert run(output, work) is None  # the lock went with the first run


def test_a_run_goes_on_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    def none(descriptor, operation):
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr("panreg.output.folder_lock.fcntl.flock", none)
    assert run(tmp_path / "out") is None
    assert is_published(tmp_path / "out")


def test_objects_are_announced_with_their_hashes_before_they_appear(places):
    output, work = places
    seen = []

    def announce(objects):
        seen.extend(objects)
        assert not (output / "dicom").exists()

    with Publication(output, work) as publication:
        write_objects(publication.staging)
        assert publication.publish((), announce) == seen
    assert len(seen) == SLICES + 1


def test_other_work_folders_and_other_outputs_staging_are_left_alone(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    with Publication(tmp_path / "a", work) as one, Publication(tmp_path / "b", work) as other:
        assert one.staging != other.staging
        write_objects(one.staging)
        one.publish()
    assert is_complete(tmp_path / "a")


def test_a_work_folder_on_another_file_system_is_not_used(tmp_path, monkeypatch):
    work, output = tmp_path / "work", tmp_path / "output"
    work.mkdir()
    rename = Path.rename

    def across_mounts(self, target):
        if self.parent == work:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across_mounts)
    with Publication(output, work) as publication:
        assert publication.staging == output / ".panreg.part"
        write_objects(publication.staging)
        publication.publish()
    assert is_complete(output)
    assert not os.listdir(work)


def test_a_real_other_file_system_is_not_used(tmp_path):
    shared_memory = Path("/dev/shm")
    if not shared_memory.exists() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the temporary files lie in /dev/shm, or there is none")
    with Publication(tmp_path / "output", shared_memory) as publication:
        assert publication.staging.parent == tmp_path / "output"
    assert not list(shared_memory.glob("panreg-*"))


# ----------------------------------------------------------------------------------------------------------- validation
@pytest.mark.hazard("half a result is used")
def test_a_fault_in_one_object_publishes_none(places):
    output, work = places

    def missing(dataset):
        return ["PatientSize"] if "0001" in str(dataset.filename) else []

    failure = failed(lambda: publish(output, work, missing))
    assert (failure.code, failure.message) == (
        Code.E_OUTPUT,
        "registered/registered_0001.dcm failed its check: PatientSize.",
    )
    assert not os.listdir(output)


def publish(output, work, *validators, write=write_objects):
    with Publication(output, work) as publication:
        write(publication.staging)
        publication.publish(validators)


def test_a_validator_that_raises_publishes_nothing_and_its_text_is_not_told(tmp_path):
    def broken(dataset):
        raise ValueError(f"bad name {dataset.PatientName}")

    failure = failed(lambda: publish(tmp_path, None, broken))
    assert failure.code is Code.E_OUTPUT
    assert "Canary" not in failure.message
    assert not os.listdir(tmp_path)


def not_dicom(staging):
    write_objects(staging)
    (staging / "notes.txt").write_text("not DICOM")


def value_of_wrong_kind(staging):
    write_objects(staging)
    path = staging / "report_0000.dcm"
    path.write_bytes(path.read_bytes().replace(b"19700101", b"1970/1/1"))


def truncated(staging, size=700):
    write_objects(staging)
    os.truncate(staging / "report_0000.dcm", size)


def without_its_last_byte(staging):
    truncated(staging, len(objects()[Path("report_0000.dcm")]) - 1)


def same_instance_twice(staging):
    write_objects(staging)
    shutil.copy(staging / "report_0000.dcm", staging / "copy.dcm")


def nothing(staging):
    (staging / "empty").mkdir()


@pytest.mark.parametrize(
    "write", [not_dicom, value_of_wrong_kind, truncated, without_its_last_byte, same_instance_twice, nothing]
)
def test_what_is_no_valid_set_of_objects_is_not_published(tmp_path, write):
    assert failed(lambda: publish(tmp_path, None, write=write)).code is Code.E_OUTPUT
    assert not os.listdir(tmp_path)
