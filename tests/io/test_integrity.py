"""Files that are cut off or damaged end in one sentence, whoever reads them, and with nothing else on the screen."""

import gzip
import shutil

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.headers import read_header
from bundle.io.integrity import DamagedFileError, check_whole
from bundle.io.points import read_points
from bundle.io.points.surfaces import _vtk
from bundle.io.transforms import read_any
from bundle.transforms import read_volume

VALUES = (200 * np.random.default_rng(0).random((15, 18, 12))).astype(np.float32)
COMPRESSED = {
    "i.nii.gz": "i.nii.gz",
    "i.mgz": "i.mgz",
    "i.mha": "i.mha",
    "i.mhd": "i.zraw",
    "i.nrrd": "i.nrrd",
    "i.nhdr": "i.raw.gz",
}
"""Images, and the files that hold their voxels."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    nibabel.save(nibabel.Nifti1Image(VALUES, np.eye(4)), folder / "i.nii.gz")
    nibabel.save(nibabel.MGHImage(VALUES, np.eye(4)), folder / "i.mgz")
    for name in ("i.mha", "i.mhd", "i.nrrd", "i.nhdr", "plain.mha"):
        image = sitk.GetImageFromArray(VALUES.transpose(2, 1, 0))
        sitk.WriteImage(image, str(folder / name), useCompression=name != "plain.mha")
    sitk.WriteTransform(sitk.Euler3DTransform(), str(folder / "t.h5"))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "files")


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("is_label", [False, True])
def test_a_flipped_bit_anywhere_among_the_voxels_is_one_sentence_with_the_path(folder, name, is_label):
    np.testing.assert_array_equal(read_volume(folder / name, "image", is_label=False)[0], VALUES)
    voxels = folder / COMPRESSED[name]
    size = voxels.stat().st_size
    for at in (size // 2, size - 100, size - 6):  # the last lies in the checksum
        shutil.copy(voxels, folder / "kept")
        flip(voxels, at)
        with pytest.raises(ValueError, match=r"^The image \(.*\) cannot be used: it is cut off") as caught:
            read_volume(folder / name, "image", is_label)
        assert str(folder / name) in str(caught.value)
        assert "\n" not in str(caught.value)
        shutil.copy(folder / "kept", voxels)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("missing", [1, 200])
def test_a_compressed_image_without_its_end_is_refused_though_its_voxels_may_be_there(folder, name, missing):
    voxels = folder / COMPRESSED[name]
    voxels.write_bytes(voxels.read_bytes()[:-missing])
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_volume(folder / name, "image", is_label=False)


def test_files_that_are_not_compressed_or_something_else_pass(folder):
    (folder / "text.nii.gz").write_text("no image")
    (folder / "text.nrrd").write_text("no image")
    (folder / "text.h5").write_text("no transform")
    for name in ("plain.mha", "t.h5", "text.nii.gz", "text.nrrd", "text.h5"):
        check_whole(folder / name)


@pytest.mark.parametrize(
    ("kind", "shape", "intent"),
    [
        ("fnirt", (15, 18, 12, 3), 2006),
        ("afni", (15, 18, 12, 1, 3), 1007),
        ("learn2reg", (15, 18, 12, 3), 0),
        ("freesurfer", (15, 18, 12, 1, 3), 1006),
        ("itk", (15, 18, 12, 1, 3), 1007),
    ],
)
def test_a_flipped_bit_of_a_field_is_one_sentence_whosever_form_it_has(tmp_path, kind, shape, intent):
    field = nibabel.Nifti1Image(np.random.default_rng(1).random(shape).astype(np.float32), np.eye(4))
    field.header.set_intent(intent, allow_unknown=True)
    nibabel.save(field, tmp_path / "f.nii.gz")
    flip(tmp_path / "f.nii.gz", (tmp_path / "f.nii.gz").stat().st_size - 100)
    grid = read_header(tmp_path / "f.nii.gz").grid
    with pytest.raises(ValueError, match=r"^The transform \(.*f\.nii\.gz\) cannot be read: it is cut off or damaged"):
        read_any(tmp_path / "f.nii.gz", grid, grid, kind)


@pytest.mark.parametrize("ending", [".h5", ".x5"])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_hdf5_that_is_cut_off_is_one_sentence_and_the_hdf5_library_says_nothing(tmp_path, capfd, ending, libver):
    path = tmp_path / f"t{ending}"
    with h5py.File(path, "w", libver=libver) as file:
        file["numbers"] = np.arange(1000.0)
    check_whole(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cannot be read: it is cut off or damaged"):
        read_any(path)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_is_told_from_one_that_is_none(folder):
    flip(folder / "i.nii.gz", 1000)
    with pytest.raises(DamagedFileError, match="copy or make it again"):
        check_whole(folder / "i.nii.gz")
    (folder / "i.nii.gz").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(ValueError, match="cannot be read as a NIfTI, NRRD or MHA image"):
        read_volume(folder / "i.nii.gz", "image", is_label=False)


# --- surfaces ---

WRITERS = {".vtk": "vtkPolyDataWriter", ".vtp": "vtkXMLPolyDataWriter", ".stl": "vtkSTLWriter", ".ply": "vtkPLYWriter"}


def sphere(path, is_binary):
    """A surface of 27 vertices."""
    vtk = _vtk("a test's")
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    points = [(np.cos(a), np.sin(a), z) for z in (0.0, 1.0, 2.0) for a in angles]
    surface, placed, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    for point in points:
        placed.InsertNextPoint(point)
    for n in range(18):
        cells.InsertNextCell(3, (n, n + 9, 9 * (n // 9) + (n + 1) % 9))
    surface.SetPoints(placed)
    surface.SetPolys(cells)
    writer = getattr(vtk, WRITERS[path.suffix])()
    writer.SetInputData(surface)
    writer.SetFileName(str(path))
    if path.suffix == ".vtp":
        (writer.SetDataModeToBinary if is_binary else writer.SetDataModeToAscii)()
    else:
        (writer.SetFileTypeToBinary if is_binary else writer.SetFileTypeToASCII)()
    writer.Write()


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("is_binary", [False, True])
def test_a_surface_that_is_cut_off_is_one_sentence_and_vtk_says_nothing(tmp_path, capfd, ending, is_binary):
    path = tmp_path / f"s{ending}"
    sphere(path, is_binary)
    assert len(read_points(path, "lps").positions) in (27, 24)  # STL has no vertices without a triangle
    content = path.read_bytes()
    for kept in (len(content) // 3, len(content) // 2):  # in the header of PLY, too
        path.write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"is cut off or damaged|holds no vertices that VTK can read"):
            read_points(path, "lps")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", [*WRITERS, ".gii"])
def test_what_is_no_surface_is_one_sentence_and_vtk_says_nothing(tmp_path, capfd, ending):
    for content in (b"no surface at all\n1 2 3\n", bytes(range(256)) * 3):
        (tmp_path / f"s{ending}").write_bytes(content)
        with pytest.raises(ValueError, match=r"^The surface \(.*\) (is cut off|holds no vertices|cannot be read)"):
            read_points(tmp_path / f"s{ending}", "ras")
    assert capfd.readouterr() == ("", "")
