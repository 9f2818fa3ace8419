import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from panreg.failures import Code, Failure
from panreg.output.manifest import Manifest
from panreg.output.publication import Publication, output_failures
from synthetic import FIXED_AFFINE, write_series

SLICES = 2


@cache
def objects():
    """Bytes of a series in a folder, and of one object beside it, by path."""
    with TemporaryDirectory() as folder:
        paths = write_series(Path(folder) / "registered", np.ones((SLICES, 4, 5)), FIXED_AFFINE, name="registered")
        paths += write_series(folder, np.ones((1, 4, 5)), FIXED_AFFINE, name="report")
        return {path.relative_to(folder): path.read_bytes() for path in paths}


def write_objects(staging):
    """What the writers do."""
    (staging / "registered").mkdir()
    for path, content in objects().items():
        (staging / path).write_bytes(content)


def run(output, work=None, write=write_objects, validators=()):
    """A whole run, as the application does it; the failure's code or None."""
    with Publication(output, work) as publication:
        manifest = Manifest(output)
        try:
            with output_failures():
                write(publication.staging)
            manifest.succeed(publication.publish(validators))
        except Failure as failure:
            publication.withdraw()
            return manifest.fail(failure)


def failed(action):
    with pytest.raises(Failure) as info:
        action()
    return info.value


def status_of(output):
    path = output / "run_manifest.json"
    return json.loads(path.read_text())["status"] if path.exists() else None


def is_complete(output):
    files = sorted(path for path in (output / "dicom").rglob("*") if path.is_file())
    assert len(files) == SLICES + 1
    return all("PixelData" in pydicom.dcmread(path) for path in files)


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture(params=["output", "work"])
def places(request, tmp_path):
    """Output folder and work folder: staged in the output itself, or in the work folder."""
    (tmp_path / "work").mkdir()
    return tmp_path / "new" / "output", tmp_path / "work" if request.param == "work" else None


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
    assert os.listdir(output) == ["dicom"]
    assert work is None or not os.listdir(work)


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

    monkeypatch.setattr("panreg.output.publication.fcntl.flock", none)
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
    if shared_memory.exists() and shared_memory.stat().st_dev != tmp_path.stat().st_dev:
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


# --------------------------------------------------------------------------------------------------------- bad outputs
def in_child(action):
    """Do something in a process of its own; its exit status, or the signal that killed it, negative."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            status = action() or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def exit_code_of(action):
    try:
        code = action()
    except Failure as failure:
        code = failure.code
    return code.exit_code if code else 0


def without_privileges(folder):
    """Be a user that owns nothing, inside a folder: root may write everywhere."""
    os.chdir(folder)
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.property(3)
def test_an_output_that_the_user_may_not_write_is_refused_before_anything_else(tmp_path):
    for name in ("existing", "."):  # a folder made by another user; a parent that is
        output = Path(name) if name != "." else Path("new")
        (tmp_path / "existing").mkdir(exist_ok=True)
        (tmp_path / "existing").chmod(0o555)
        tmp_path.chmod(0o555)

        def action(output=output):
            without_privileges(tmp_path)
            return exit_code_of(lambda: run(output))

        try:
            assert in_child(action) == Code.E_OUTPUT.exit_code == 60
        finally:
            tmp_path.chmod(0o755)
        assert names_below(tmp_path) == ["existing"]


def test_a_work_folder_that_the_user_may_not_write_is_not_used(tmp_path):
    (tmp_path / "work").mkdir(mode=0o555)
    (tmp_path / "output").mkdir()
    (tmp_path / "output").chmod(0o777)
    tmp_path.chmod(0o755)

    def action():
        without_privileges(tmp_path)
        return exit_code_of(lambda: run(Path("output"), Path("work")))

    assert in_child(action) == 0
    assert is_complete(tmp_path / "output")


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "output").write_text("")
    assert failed(lambda: run(tmp_path / "output")).code is Code.E_OUTPUT


@pytest.mark.hazard("patient data leaks")
def test_the_message_names_the_user_and_no_path(tmp_path):
    def action():
        with output_failures():
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "Doe^Jane"))

    message = failed(action).message
    assert f"user {os.geteuid()} (EACCES)" in message
    assert "Doe" not in message
    assert str(tmp_path) not in message


def test_room_that_is_not_there_is_refused_before_it_is_used(tmp_path):
    with Publication(tmp_path) as publication:
        publication.require_space(1)
        assert failed(lambda: publication.require_space(1 << 60)).code is Code.E_OUTPUT


@pytest.mark.hazard("half a result is used")
@pytest.mark.property(3)
def test_a_full_disk_while_writing_leaves_a_failed_manifest_and_no_object(places):
    output, work = places

    def full(staging):
        write_objects(staging)
        with open("/dev/full", "w") as file:  # the kernel's own ENOSPC
            file.write("x")

    assert run(output, work, full) is Code.E_OUTPUT
    assert os.listdir(output) == ["run_manifest.json"]
    assert "ENOSPC" in (output / "run_manifest.json").read_text()
    assert status_of(output) == "failed"


@pytest.mark.parametrize("size", [0, 200, 900, 1200, 4000])
def test_files_that_can_not_grow_leave_no_object(places, size):
    output, work = places

    objects()

    def action():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return exit_code_of(lambda: run(output, work))

    largest = max(map(len, objects().values()))
    code = in_child(action)
    assert code == (0 if is_published(output) else 60)
    assert is_published(output) == (size > largest)
    assert not [name for name in names_below(output.parent) if ".part" in name]


def is_published(output):
    return (output / "dicom").exists() and is_complete(output) and status_of(output) == "ok"


# ----------------------------------------------------------------------------------------------------------- kill -9
def killed_after(steps, output, work):
    """Run in a child that SIGKILL ends at its n-th step on the file system; whether it came that far."""

    def action():
        left = [steps]

        def hook(event, arguments):
            if event.split(".")[0] in ("open", "os", "shutil") and any(isinstance(a, (str, Path)) for a in arguments):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        return exit_code_of(lambda: run(output, work))

    code = in_child(action)
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.hazard("half a result is used")
@pytest.mark.property(3)
def test_a_run_killed_at_any_step_leaves_no_results_or_all(places):
    output, work = places
    objects()
    steps, seen = 0, set()
    while killed_after(steps, output, work):
        published, status = (output / "dicom").exists(), status_of(output)
        seen.add((published, status))
        if published:
            assert is_complete(output)
        else:
            assert status in (None, "running")
            if steps % 7 == 0:
                assert run(output, work) is None  # what is left is not in the next run's way
                assert is_published(output)
        for folder in (output, *(work.iterdir() if work else ())):
            shutil.rmtree(folder, ignore_errors=True)
        steps += 1
    assert is_published(output)
    assert seen >= {(False, None), (False, "running"), (True, "running")}
    assert steps > 30
