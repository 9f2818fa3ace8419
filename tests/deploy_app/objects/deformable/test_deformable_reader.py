"""What the reader makes of deformation objects, whole, changed or broken."""

import numpy as np
import pydicom
import pytest
import torch
from known_field import edited, grid_of, is_right
from panreg.failures import Code, Failure
from panreg.objects.deformable.reader import read_deformable_registration
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from synthetic import rotation


def test_a_big_endian_file_reads_the_same(written, tmp_path):
    def swap(dataset):
        item = grid_of(dataset)
        item.VectorGridData = np.frombuffer(item.VectorGridData, "<f4").astype(">f4").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

    path = edited(written[0], tmp_path, swap, little_endian=False, implicit_vr=False)
    theirs, ours = (read_deformable_registration(p).deforming.grid.vectors for p in (path, written[0]))
    assert np.array_equal(theirs, ours)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_implicit_and_deflated_files_read_the_same(written, tmp_path, syntax):
    path = edited(written[0], tmp_path, lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", syntax))
    theirs, ours = (read_deformable_registration(p).deforming.grid.vectors for p in (path, written[0]))
    assert np.array_equal(theirs, ours)


def test_the_matrices_act_before_and_after_the_field_which_is_looked_up_before_both(written, tmp_path):
    pre, post = np.eye(4), np.eye(4)
    pre[:3, :3], pre[:3, 3] = rotation("z", 20), [3, -5, 7]
    post[:3, :3], post[:3, 3] = rotation("x", -10) * 1.1, [-2, 4, 1]

    def edit(dataset):
        item = dataset.DeformableRegistrationSequence[0]
        for name, matrix, kind in (("Pre", pre, "RIGID"), ("Post", post, "RIGID_SCALE")):
            matrix_item = item[f"{name}DeformationMatrixRegistrationSequence"].value[0]
            matrix_item.FrameOfReferenceTransformationMatrix = [f"{value:.12f}" for value in matrix.ravel()]
            matrix_item.FrameOfReferenceTransformationMatrixType = kind

    points = np.random.default_rng(0).uniform(-40, 40, (50, 3))
    found = read_deformable_registration(edited(written[0], tmp_path, edit)).displacement_at(points).numpy() + points
    field = read_deformable_registration(written[0]).displacement_at(points).numpy()
    expected = (points @ pre[:3, :3].T + pre[:3, 3] + field) @ post[:3, :3].T + post[:3, 3]
    assert np.abs(found - expected).max() < 1e-9


def test_undefined_triples_make_their_neighbourhood_undefined_but_no_more(written, tmp_path):
    def edit(dataset):
        item = grid_of(dataset)
        vectors = np.frombuffer(item.VectorGridData, "<f4").reshape(*item.GridDimensions[::-1], 3).copy()
        vectors[10, 12, 14] = np.nan
        item.VectorGridData = vectors.tobytes()

    grid = read_deformable_registration(edited(written[0], tmp_path, edit)).deforming.grid
    index = np.array([[14, 12, 10], [14.5, 12, 10], [14.9, 12.9, 10.9], [15, 12, 10], [13, 12, 10], [20, 20, 20]])
    found = grid.at(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])
    assert np.isnan(found).all(-1).tolist() == [True, True, True, False, False, False]


def test_points_beyond_the_grid_have_no_displacement(written):
    grid = read_deformable_registration(written[0]).deforming.grid
    index = np.array([[-0.4, 3, 3], [-0.6, 3, 3], [3, 3, grid.vectors.shape[0] - 0.6]])
    found = grid.at(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])
    assert np.isnan(found).all(-1).tolist() == [False, True, False]
    assert np.allclose(found[0], grid.at(np.array([[0, 3, 3]]) @ grid.affine[:3, :3].T + grid.affine[:3, 3])[0])


def change_vectors(value):
    def edit(dataset):
        item = grid_of(dataset)
        vectors = np.frombuffer(item.VectorGridData, "<f4").copy()
        vectors[100] = value
        item.VectorGridData = vectors.tobytes()

    return edit


def change_grid(keyword, value):
    return lambda dataset: setattr(grid_of(dataset), keyword, value)


def change_matrix(keyword, value):
    def edit(dataset):
        item = dataset.DeformableRegistrationSequence[0].PreDeformationMatrixRegistrationSequence[0]
        setattr(item, keyword, value)

    return edit


def shorten(dataset):
    grid_of(dataset).VectorGridData = grid_of(dataset).VectorGridData[:-12]


def double_grid(dataset):
    grids = dataset.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence
    grids.append(grids[0])


BROKEN = {
    "infinite": change_vectors(np.inf),
    "undefined in part": change_vectors(np.nan),
    "another length": shorten,
    "left-handed": change_grid("GridResolution", [3.0, 3.0, -3.0]),
    "perpendicular": change_grid("ImageOrientationPatient", ["1", "0", "0", "0.1", "1", "0"]),
    "several grids": double_grid,
    "unknown type": change_matrix("FrameOfReferenceTransformationMatrixType", "PERSPECTIVE"),
    "not affine": change_matrix("FrameOfReferenceTransformationMatrix", [*"1000010000100", "0.1", "0", "1"]),
    "inverted": change_matrix("FrameOfReferenceTransformationMatrix", [*"1000000000100001"]),
    "not RIGID": change_matrix("FrameOfReferenceTransformationMatrix", [*"2000010000100001"]),
    "not RIGID: it mirrors": change_matrix("FrameOfReferenceTransformationMatrix", ["-1", *"000010000100001"]),
    "lacks an attribute": lambda dataset: delattr(dataset, "FrameOfReferenceUID"),  # noqa: B043
    "lacks": lambda dataset: delattr(grid_of(dataset), "GridDimensions"),  # noqa: B043
    "three": change_grid("GridDimensions", [3, 4]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_object_that_breaks_the_standard_is_refused(written, tmp_path, what):
    with pytest.raises(Failure, match=what) as refused:
        read_deformable_registration(edited(written[0], tmp_path, BROKEN[what]))
    assert refused.value.code is Code.E_DECODE


def test_another_object_or_no_dicom_at_all_is_refused(registration, tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"no image" * 100)
    for path in (registration.fixed.frames[0].path, tmp_path / "x.dcm", tmp_path / "absent.dcm"):
        with pytest.raises(Failure) as refused:
            read_deformable_registration(path)
        assert refused.value.code is Code.E_NO_INPUT


def test_of_several_items_the_one_that_names_the_moving_image_is_used(registration, written, tmp_path):
    def edit(dataset):
        other = pydicom.dcmread(written[0]).DeformableRegistrationSequence[0]
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
        other.ReferencedImageSequence = [image]
        vectors = other.DeformableRegistrationGridSequence[0]
        vectors.VectorGridData = bytes(len(vectors.VectorGridData))
        dataset.DeformableRegistrationSequence.insert(0, other)

    read = read_deformable_registration(edited(written[0], tmp_path, edit))
    assert is_right(read.deformation_of(registration.moving), registration)
    with pytest.raises(Failure, match="2 images") as refused:
        read.displacement_at(np.zeros((1, 3)))
    assert refused.value.code is Code.E_AMBIGUOUS


def test_an_image_that_no_item_names_is_refused(registration, written):
    with pytest.raises(Failure) as refused:
        read_deformable_registration(written[0]).deformation_of(registration.fixed)
    assert refused.value.code is Code.E_NO_MATCH


def test_an_unnamed_image_is_found_by_its_frame_of_reference(registration, written, tmp_path):
    path = edited(
        written[0],
        tmp_path,
        lambda d: delattr(d.DeformableRegistrationSequence[0], "ReferencedImageSequence"),  # noqa: B043
    )
    read = read_deformable_registration(path)
    assert isinstance(read.deformation_of(registration.moving).displacement_at(np.zeros((2, 3))), torch.Tensor)
