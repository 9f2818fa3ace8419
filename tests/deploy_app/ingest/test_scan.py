import os
import shutil
from time import process_time

import numpy as np
import pydicom
import pytest
from hazards import SHAPE, STORED, enhanced, setting, write
from panreg.failures import Code, Failure
from panreg.ingest import scan as scan_module
from panreg.ingest.scan import SEGMENTATION_CLASS, scan
from panreg.ingest.stack import Stack
from panreg.ingest.stacks import find_stacks
from panreg.limits import Limits
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian


def code_of(folder, **limits):
    with pytest.raises(Failure) as caught:
        scan(folder, Limits(**limits))
    assert str(folder) not in caught.value.message
    return caught.value.code


def refusals(folder, **limits):
    found = [stack.refusal for stack in find_stacks(scan(folder, Limits(**limits)))]
    return [(refusal.code, refusal.message) for refusal in found]


# what is an image
def test_images_are_found_by_content_in_any_folder(tmp_path):
    paths = write(tmp_path / "study" / "series")
    (tmp_path / "empty").mkdir()
    for k, path in enumerate(paths):
        path.with_suffix(".dcm.json").write_text('{"00080005": {"vr": "CS"}}')
        path.rename(path.with_name(f"{k}.txt"))
    (tmp_path / "zero.dcm").touch()
    (tmp_path / "short.dcm").write_bytes(b"\x08\0\x05\0")
    found = scan(tmp_path, Limits())
    assert len(found.instances) == SHAPE[0]
    assert found.skipped == {"not_dicom": SHAPE[0] + 2}
    assert "PixelData" not in found.instances[0].header


def test_an_empty_folder_is_an_empty_scan(tmp_path):
    found = scan(tmp_path, Limits())
    assert found.instances == found.segmentations == ()
    assert not found.skipped


@pytest.mark.parametrize(("name", "told"), [("file", "is a file"), ("absent", "isn't there"), ("file/below", "isn't")])
def test_what_is_no_folder_is_told_as_such(tmp_path, name, told):
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match=f"The folder to read {told}") as info:
        scan(tmp_path / name, Limits())
    assert info.value.code is Code.E_NO_INPUT


def test_other_objects_are_counted_by_their_class(tmp_path):
    classes = {
        "1.2.840.10008.5.1.4.1.1.128": "Positron Emission Tomography Image Storage",
        "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
        "1.2.3.4": "private SOP class",
    }
    for n, sop_class in enumerate(classes):
        write(tmp_path, setting(SOPClassUID=sop_class), stored=STORED[: n + 1], name=f"other{n}")
    assert scan(tmp_path, Limits()).skipped == {name: n + 1 for n, name in enumerate(classes.values())}


def test_what_is_no_whole_image_is_counted_by_its_reason(tmp_path):
    def edit(ds, k):
        delattr(ds, ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows", "Modality"][k])

    for k, path in enumerate(write(tmp_path, stored=STORED[:5])):
        ds = pydicom.dcmread(path)
        edit(ds, k)
        pydicom.dcmwrite(path, ds, enforce_file_format=False)
    assert scan(tmp_path, Limits()).skipped == {"no_uids": 3, "no_image": 2}


def test_segmentations_beside_the_images_are_kept_apart(tmp_path):
    write(tmp_path)
    write(tmp_path, setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), stored=STORED[:1], name="mask")
    found = scan(tmp_path, Limits())
    assert len(found.instances) == SHAPE[0]
    assert [frame.path.name for frame in found.segmentations] == ["mask_0000.dcm"]


def test_a_segmentation_too_large_to_unpack_stays_out_of_the_way(tmp_path):
    write(tmp_path)
    many = setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", NumberOfFrames="20000000")
    write(tmp_path, many, stored=STORED[:1], name="mask")
    found = scan(tmp_path, Limits())
    assert len(found.instances) == SHAPE[0]
    assert found.segmentations == ()
    assert found.skipped == {"segmentation_too_large": 1}


def test_a_dicomdir_is_no_damaged_image(tmp_path):
    (path,) = write(tmp_path, stored=STORED[:1])
    ds = pydicom.dcmread(path)
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    del ds.SOPInstanceUID
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    assert scan(tmp_path, Limits()).skipped == {"dicomdir": 1}


def test_a_deflated_file_is_never_inflated(tmp_path):
    (path,) = write(tmp_path, stored=STORED[:1])
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.PixelData = bytes(10**7)
    ds.save_as(path)
    assert scan(tmp_path, Limits()).skipped == {"deflated": 1}
    path.write_bytes(path.read_bytes()[132:])  # likewise without a preamble
    assert scan(tmp_path, Limits()).skipped == {"deflated": 1}


def test_large_private_elements_stay_in_the_file_until_they_are_asked_for(tmp_path):
    def edit(ds, k):
        ds.private_block(0x0021, "VENDOR", create=True).add_new(1, "OB", bytes(200_000))

    write(tmp_path, edit, stored=STORED[:1])
    asked, late = (scan(tmp_path, Limits()).instances[0] for _ in range(2))
    assert len(asked.header[0x00211001].value) == 200_000
    asked.path.unlink()
    with pytest.raises(OSError, match="missing"):
        late.header[0x00211001]


# the same instance twice
def test_a_duplicate_file_is_kept_once(tmp_path):
    path = write(tmp_path)[4]
    shutil.copy(path, tmp_path / "copy.dcm")
    found = scan(tmp_path, Limits())
    assert len(found.instances) == SHAPE[0]
    assert found.skipped == {"duplicate_file": 1}
    assert isinstance(find_stacks(found)[0], Stack)


def test_different_files_of_one_instance_collide(tmp_path):
    path = write(tmp_path)[4]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy.dcm").write_bytes(content)
    write(tmp_path / "other", name="other", series_number=7)
    refused, other = sorted(find_stacks(scan(tmp_path, Limits())), key=lambda stack: stack.header.SeriesNumber)
    assert isinstance(other, Stack)  # a series that nobody asked for ends no run
    assert refused.refusal.code is Code.E_UID_COLLISION
    assert refused.refusal.message.startswith("Series 3: two different files have one SOP Instance UID")


def test_an_instance_of_two_series_collides_in_both(tmp_path):
    first, other = write(tmp_path / "a")[0], write(tmp_path / "b", name="other")[2]
    ds = pydicom.dcmread(other)
    ds.SOPInstanceUID = pydicom.dcmread(first).SOPInstanceUID
    ds.save_as(other)
    assert [stack.refusal.code for stack in find_stacks(scan(tmp_path, Limits()))] == [Code.E_UID_COLLISION] * 2


@pytest.mark.parametrize("preamble", [True, False])
def test_files_that_differ_in_their_file_meta_alone_are_duplicates(tmp_path, preamble):
    """Archives write their own name there."""
    path = write(tmp_path)[4]
    ds = pydicom.dcmread(path)
    ds.file_meta.SourceApplicationEntityTitle, ds.file_meta.ImplementationVersionName = "ARCHIVE", "ELSE"
    ds.save_as(tmp_path / "copy.dcm", enforce_file_format=True)
    content = (tmp_path / "copy.dcm").read_bytes()
    assert content != path.read_bytes()
    (tmp_path / "copy.dcm").write_bytes(content if preamble else content[132:])
    found = scan(tmp_path, Limits())
    assert (found.skipped, found.collisions) == ({"duplicate_file": 1}, frozenset())


def test_one_data_set_in_two_transfer_syntaxes_is_no_duplicate(tmp_path):
    path = write(tmp_path)[4]
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(tmp_path / "copy.dcm", enforce_file_format=True)
    (stack,) = find_stacks(scan(tmp_path, Limits()))
    assert stack.refusal.code is Code.E_UID_COLLISION


def test_of_two_drawn_objects_with_one_uid_neither_is_taken(tmp_path):
    for n, label in enumerate("ab"):
        ds = pydicom.dcmread(write(tmp_path, stored=STORED[:1])[0])
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesDescription = SEGMENTATION_CLASS, "1.2.3", label
        ds.save_as(tmp_path / f"drawn_{n}.dcm")
    found = scan(tmp_path, Limits())
    assert (found.segmentations, found.skipped) == ((), {"segmentation_uid_collision": 1})
    assert len(found.instances) == 1


# what is not followed, and what can't be read
@pytest.mark.hazard("absurd input exhausts the machine")
@pytest.mark.property(15)
def test_links_out_of_the_input_are_not_followed(tmp_path):
    outside = write(tmp_path / "outside")[0].parent
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "folder").symlink_to(outside)
    (inside / "file.dcm").symlink_to(next(outside.iterdir()))
    (inside / "loop").symlink_to(inside)
    (inside / "nowhere").symlink_to(tmp_path / "absent")
    found = scan(inside, Limits())
    assert found.instances == ()
    assert found.skipped == {"link": 4}


@pytest.mark.property(15)
def test_a_fifo_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo.dcm")
    assert scan(tmp_path, Limits()).skipped == {"not_regular": 1}


def test_an_input_that_is_absent_or_unreadable_is_no_input(tmp_path, monkeypatch):
    assert code_of(tmp_path / "absent") is Code.E_NO_INPUT
    write(tmp_path)

    def denied(path, limits):  # the tests may run as root, who reads everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(scan_module, "_header", denied)
    assert code_of(tmp_path) is Code.E_NO_INPUT


# limits
@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
@pytest.mark.hazard("absurd input exhausts the machine")
@pytest.mark.property(15)
def test_absurd_sizes_are_refused(tmp_path, keyword):
    write(tmp_path, lambda ds, k: setting(**{keyword: 65535 if k == 5 else 20})(ds, k))
    setting_of = f"its {keyword} is not from 1 to 4096 (PANREG_LIMITS_{keyword.upper()})"
    assert {code for code, _ in refusals(tmp_path)} == {Code.E_LIMIT, Code.E_MISSING_SLICES}
    assert any(message.startswith(f"Series 3: {setting_of}") for _, message in refusals(tmp_path))


@pytest.mark.parametrize("frames", ["2147483647", "4097", "0", "-3"])
@pytest.mark.property(15)
def test_absurd_numbers_of_frames_are_refused(tmp_path, frames):
    enhanced(tmp_path, edit=lambda ds: setattr(ds, "NumberOfFrames", frames))
    ((code, message),) = refusals(tmp_path)
    assert code is Code.E_LIMIT
    assert message.startswith("Series 3: its NumberOfFrames is not from 1 to 4096 (PANREG_LIMITS_FRAMES)")


def test_an_image_beyond_the_limits_leaves_the_others_to_be_chosen(tmp_path):
    """A functional series beside a pair: nobody asked for it."""
    enhanced(tmp_path, edit=lambda ds: setattr(ds, "NumberOfFrames", "5000"))
    write(tmp_path / "other", name="other", series_number=7)
    stacks = find_stacks(scan(tmp_path, Limits()))
    assert sorted((type(stack).__name__, stack.shape[0]) for stack in stacks) == [("RefusedStack", 4096), ("Stack", 12)]


@pytest.mark.property(15)
def test_deep_nests_are_refused(tmp_path):
    write(tmp_path.joinpath(*"abcd"), stored=STORED[:1])
    assert len(scan(tmp_path, Limits(depth=4)).instances) == 1
    assert code_of(tmp_path, depth=3) is Code.E_LIMIT


def test_too_many_files_are_refused_before_any_is_read(tmp_path, monkeypatch):
    for n in range(30):
        (tmp_path / f"{n}").touch()
    monkeypatch.setattr(scan_module, "_header", lambda *_: pytest.fail("read"))
    assert code_of(tmp_path, files=29) is Code.E_LIMIT


def test_too_many_empty_folders_are_refused_too(tmp_path):
    for n in range(30):
        (tmp_path / f"{n}").mkdir()
    assert code_of(tmp_path, files=29) is Code.E_LIMIT


@pytest.mark.hazard("absurd input exhausts the machine")
@pytest.mark.property(15)
def test_ten_thousand_files_are_counted_in_a_second_and_read_if_allowed(tmp_path):
    first = tmp_path / "0"
    first.touch()
    for n in range(1, 10_000):
        os.link(first, tmp_path / f"{n}")
    start = process_time()
    assert code_of(tmp_path, files=9_999) is Code.E_LIMIT
    assert process_time() - start < 1
    assert scan(tmp_path, Limits(files=10_000)).skipped == {"not_dicom": 10_000}


# malformed bytes
@pytest.mark.property(16)
def test_every_truncation_of_a_header_is_counted_or_read(tmp_path):
    (path,) = write(tmp_path, stored=STORED[:1])
    content = path.read_bytes()
    for length in range(0, len(content) - STORED[0].size * 2, 13):
        path.write_bytes(content[:length])
        found = scan(tmp_path, Limits())
        assert len(found.instances) + sum(found.skipped.values()) == 1
        find_stacks(found)


def test_endless_nesting_of_sequences_is_malformed(tmp_path):
    (path,) = write(tmp_path, stored=STORED[:1])
    item = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path.write_bytes(path.read_bytes()[:400] + item * 5000)
    assert sum(scan(tmp_path, Limits()).skipped.values()) == 1


@pytest.mark.hazard("patient data leaks")
@pytest.mark.property(6)
def test_no_value_of_a_header_reaches_warnings_or_logs(tmp_path, recwarn, caplog):
    """pydicom quotes malformed values, and with a damaged length the patient's name behind them."""
    paths = write(tmp_path)
    for n, path in enumerate(paths):
        content = path.read_bytes()
        at = content.index(b"\x08\x00\x18\x00UI") + 6  # length of the SOP Instance UID: on to the patient's name
        path.write_bytes(content[:at] + (400 + 2 * n).to_bytes(2, "little") + content[at + 2 :])
    with caplog.at_level("DEBUG"):
        find_stacks(scan(tmp_path, Limits()))
    assert not recwarn.list
    assert "Canary" not in caplog.text


def test_the_scan_changes_nothing(tmp_path):
    paths = write(tmp_path)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    for path in paths:
        path.chmod(0o444)
    find_stacks(scan(tmp_path, Limits()))
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
    assert np.all([path.exists() for path in paths])
