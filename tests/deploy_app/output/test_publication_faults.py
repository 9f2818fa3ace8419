"""Outputs that cannot be written, and runs that are killed."""

import errno
import io
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from threading import Event, Thread

import pytest
from panreg.failures import Code, Failure
from panreg.output.publication import Publication, output_failures
from publishing import (
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
from pydicom import Dataset, dcmwrite

# --------------------------------------------------------------------------------------------------------- bad outputs


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


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EFBIG", "EACCES"])
def test_a_full_disk_is_recognised_in_what_pydicom_makes_of_it(number):
    class Full(io.BytesIO):
        def write(self, data):
            if len(data) > 1000:
                raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
            return super().write(data)

    dataset = Dataset()
    dataset.PatientComments = "x" * 2000
    with pytest.raises(Failure) as info, output_failures():
        dcmwrite(Full(), dataset, implicit_vr=False, little_endian=True)
    assert info.value.code is Code.E_OUTPUT
    assert f"({number})" in info.value.message
    assert ("can't be written by user" if number == "EACCES" else "has no space left") in info.value.message


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


@pytest.mark.slow
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
            assert not (output / "report.html").exists()  # never alone
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


@pytest.mark.hazard("half a result is used")
def test_a_run_that_another_thread_ends_leaves_nothing_and_publishes_nothing_more(tmp_path):
    output, at_work, goes_on, failures = tmp_path / "out", Event(), Event(), []

    def validate(_):
        at_work.set()
        goes_on.wait()
        return []

    with Publication(output) as publication:
        write_objects(publication.staging)
        publisher = Thread(target=lambda: failures.append(failed(lambda: publication.publish([validate]))))
        publisher.start()
        at_work.wait()
        with publication.abandoned() as is_abandoned:
            goes_on.set()
            publisher.join(0.2)
            assert is_abandoned
            assert names_below(output) == []
        publisher.join()
    assert [failure.code for failure in failures] == [Code.E_OUTPUT]
    assert names_below(output) == []


def test_results_that_have_appeared_are_not_abandoned(tmp_path):
    with Publication(tmp_path / "out") as publication:
        write_objects(publication.staging)
        publication.publish()
        with publication.abandoned() as is_abandoned:
            assert not is_abandoned
    assert is_complete(tmp_path / "out")
