"""Transforms as other tools write them: each convention against points worked out here, apart from its writer."""

import gzip
import shutil
import struct

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.io.transforms import read_any
from bundle.spatial import Grid
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import oblique

RAS = np.array([-1.0, -1.0, 1.0])  # times LPS, or the other way round


FIXED = oblique((12, 10, 8), (-1.9, 1.4, 2.3), (11, -7, 16), (12, -21, 33))  # determinant below 0
MOVING = oblique((11, 13, 9), (1.7, 2.1, 1.8), (-8, 12, 5), (9, -25, 30))  # and above
PLUMB = Grid((6, 8, 10), np.array([[-2.0, 0, 0, 5], [0, 0, 1.5, -9], [0, 3, 0, 2], [0, 0, 0, 1]]))
INDEX = np.random.default_rng(0).uniform(1, (10, 8, 6), (50, 3))  # of voxels of the fixed image
MATRIX = np.array([[1.02, 0.1, 0.2, 5], [0.03, 1.1, -0.05, -6], [0.04, 0.07, 0.9, 7], [0, 0, 0, 1]])
MATRIX_RAS = np.array([[1.02, 0.1, -0.2, -5], [0.03, 1.1, 0.05, 6], [-0.04, -0.07, 0.9, 7], [0, 0, 0, 1]])


def moved(path, points, kind=None, fixed=FIXED, moving=MOVING):
    return points + read_any(path, fixed, moving, kind).displacement_at(points).numpy()


def rows(path, matrix):
    path.write_text("\n".join(" ".join(f"{n:.9g}" for n in row) for row in matrix) + "\n")
    return path


def nifti(path, vectors, intent, grid=FIXED, axes=5):
    vectors = np.broadcast_to(np.asarray(vectors, np.float32), (*grid.shape, 3))
    image = nibabel.Nifti1Image(vectors[:, :, :, None] if axes == 5 else vectors, np.diag([-1, -1, 1, 1]) @ grid.affine)
    image.header["intent_code"] = intent
    nibabel.save(image, path)
    return path


def points():
    return FIXED.to_points(INDEX)


def test_greedys_matrix_is_of_ras_points_from_fixed_to_moving(tmp_path):
    expected = points() @ MATRIX[:3, :3].T + MATRIX[:3, 3]
    found = moved(rows(tmp_path / "affine.mat", MATRIX_RAS), points(), "greedy")
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize(("fixed", "moving"), [(FIXED, MOVING), (MOVING, FIXED), (FIXED, FIXED), (MOVING, MOVING)])
def test_flirts_matrix_goes_from_moving_to_fixed_in_voxels_times_their_size(tmp_path, fixed, moving):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = MATRIX_RAS[:3, :3], (1.5, -2.0, 3.0)
    index = np.array([[2.0, 3, 4], [5, 1, 3], [4, 6, 2.5]])  # of the moving image
    places = index * np.linalg.norm(moving.affine[:3, :3], axis=0)
    if np.linalg.det(moving.affine) > 0:
        places[:, 0] = (moving.shape[0] - 1 - index[:, 0]) * np.linalg.norm(moving.affine[:3, 0])
    places = places @ matrix[:3, :3].T + matrix[:3, 3]
    in_fixed = places / np.linalg.norm(fixed.affine[:3, :3], axis=0)
    if np.linalg.det(fixed.affine) > 0:
        in_fixed[:, 0] = fixed.shape[0] - 1 - in_fixed[:, 0]
    found = moved(rows(tmp_path / "flirt.mat", matrix), fixed.to_points(in_fixed), "flirt", fixed, moving)
    assert np.abs(found - moving.to_points(index)).max() < 1e-6


@pytest.mark.parametrize(("fixed", "moving"), [(FIXED, MOVING), (MOVING, FIXED)])
def test_fnirts_field_adds_to_the_fixed_voxels_place_in_fsls_points(tmp_path, fixed, moving):
    path = nifti(tmp_path / "warp.nii.gz", (1.5, -2.0, 3.0), 2006, fixed, axes=4)
    index = np.array([[2.0, 3, 4], [5, 1, 3], [4, 6, 2.5]])
    sizes, target_sizes = (np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (fixed, moving))
    place = index * sizes
    if np.linalg.det(fixed.affine) > 0:
        place[:, 0] = (fixed.shape[0] - 1) * sizes[0] - place[:, 0]
    target = (place + np.array([1.5, -2.0, 3.0])) / target_sizes
    if np.linalg.det(moving.affine) > 0:
        target[:, 0] = moving.shape[0] - 1 - target[:, 0]
    found = moved(path, fixed.to_points(index), fixed=fixed, moving=moving)
    assert np.abs(found - moving.to_points(target)).max() < 1e-4


def test_fnirts_coefficients_and_positions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds fnirt's coefficients"):
        moved(nifti(tmp_path / "coef.nii.gz", (0, 0, 0), 2007, axes=4), points())
    index = np.stack(np.meshgrid(*[np.arange(n) for n in FIXED.shape], indexing="ij"), -1)
    absolute = index * FIXED.spacing_mm + (1.5, -2.0, 3.0)
    with pytest.raises(ValueError, match=r"holds absolute positions: .* convertwarp"):
        moved(nifti(tmp_path / "absolute.nii.gz", absolute, 2006, axes=4), points())


def volume(grid):
    ras = np.diag([-1, -1, 1, 1]) @ grid.affine
    sizes = np.linalg.norm(ras[:3, :3], axis=0)
    centre = ras[:3, :3] @ (np.array(grid.shape) / 2) + ras[:3, 3]
    lines = ["valid = 1  # volume info valid", "filename = x.mgz", "volume = {} {} {}".format(*grid.shape)]
    named = {"voxelsize": sizes, "xras  ": ras[:3, 0] / sizes[0], "yras  ": ras[:3, 1] / sizes[1]}
    named |= {"zras  ": ras[:3, 2] / sizes[2], "cras  ": centre}
    return lines + ["{} = {:.12e} {:.12e} {:.12e}".format(key, *numbers) for key, numbers in named.items()]


def lta(path, matrix, kind, source, target):
    lines = ["# transform file x.lta", f"type      = {kind}", "nxforms   = 1", "mean      = 0.0 0.0 0.0"]
    lines += ["sigma     = 1.0", "1 4 4", *(" ".join(f"{n:.12e}" for n in row) for row in matrix)]
    lines += ["src volume info", *source, "dst volume info", *target, "subject x", "fscale 0.1"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_lta_takes_the_moving_image_to_the_fixed_one_in_ras(tmp_path):
    path = lta(tmp_path / "a.lta", np.linalg.inv(MATRIX_RAS), 1, volume(MOVING), volume(FIXED))
    assert np.abs(moved(path, points()) - points() @ MATRIX[:3, :3].T - MATRIX[:3, 3]).max() < 1e-6
    other_way = lta(tmp_path / "b.lta", MATRIX_RAS, 1, volume(FIXED), volume(MOVING))
    assert np.abs(moved(other_way, points()) - points() @ MATRIX[:3, :3].T - MATRIX[:3, 3]).max() < 1e-6


def every_second_voxel(grid):
    return Grid([(n + 1) // 2 for n in grid.shape], grid.affine @ np.diag([2, 2, 2, 1]))


@pytest.mark.parametrize("resampled", ["fixed", "moving"])
def test_one_geometry_is_enough_to_tell_the_direction_of_an_lta(tmp_path, resampled):
    expected = points() @ MATRIX[:3, :3].T + MATRIX[:3, 3]
    forward = lta(tmp_path / "a.lta", np.linalg.inv(MATRIX_RAS), 1, volume(MOVING), volume(FIXED))
    backward = lta(tmp_path / "b.lta", MATRIX_RAS, 1, volume(FIXED), volume(MOVING))
    other = {resampled: every_second_voxel(FIXED if resampled == "fixed" else MOVING)}
    assert np.abs(moved(forward, points(), **other) - expected).max() < 1e-6
    assert np.abs(moved(backward, points(), **other) - expected).max() < 1e-6


def test_an_lta_of_two_images_of_one_geometry_goes_from_the_moving_one(tmp_path):
    path = lta(tmp_path / "a.lta", np.linalg.inv(MATRIX_RAS), 1, volume(FIXED), volume(FIXED))
    expected = points() @ MATRIX[:3, :3].T + MATRIX[:3, 3]
    for moving in (FIXED, every_second_voxel(FIXED)):
        assert np.abs(moved(path, points(), moving=moving) - expected).max() < 1e-6


@pytest.mark.parametrize(("fixed", "moving"), [(PLUMB, PLUMB), (FIXED, FIXED), (PLUMB, every_second_voxel(MOVING))])
def test_an_lta_whose_direction_the_images_leave_open_is_refused(tmp_path, fixed, moving):
    path = lta(tmp_path / "a.lta", MATRIX_RAS, 1, volume(FIXED), volume(MOVING))
    with pytest.raises(ValueError, match=r"do not tell which is its src and which its dst.*convert"):
        moved(path, points(), fixed=fixed, moving=moving)


def test_an_lta_in_voxels_goes_by_the_geometries_that_it_states(tmp_path):
    matrix = np.eye(4)
    matrix[:3, 3] = (1, 2, -0.5)  # the fixed voxel is the moving one's index and this
    path = lta(tmp_path / "a.lta", matrix, 0, volume(MOVING), volume(FIXED))
    wider = oblique((30, 30, 30), (1, 1, 1), (0, 0, 0), (12, -21, 33))  # what it is applied to does not count
    found = moved(path, points(), fixed=wider)
    assert np.abs(found - MOVING.to_points(INDEX - (1, 2, -0.5))).max() < 1e-6
    invalid = ["valid = 0  # volume info invalid"]
    with pytest.raises(ValueError, match="does not say of which images"):
        moved(lta(tmp_path / "b.lta", matrix, 0, invalid, invalid), points())
    with pytest.raises(ValueError, match=r"1 matrices of type 14: .* lta_convert"):
        moved(lta(tmp_path / "c.lta", matrix, 14, volume(MOVING), volume(FIXED)), points())


def test_intent_1006_is_in_mm_along_ras(tmp_path):
    for axes in (4, 5):
        path = nifti(tmp_path / "warp.nii.gz", (1, 2, 3), 1006, axes=axes)
        assert np.abs(moved(path, points()) - points() - (-1, -2, 3)).max() < 1e-4


def geometry(grid):
    ras = np.diag([-1, -1, 1, 1]) @ grid.affine
    sizes = np.linalg.norm(ras[:3, :3], axis=0)
    centre = ras[:3, :3] @ (np.array(grid.shape) / 2) + ras[:3, 3]
    return sizes, (ras[:3, :3] / sizes).T.ravel(), centre


def mgz(path, vectors, form, intent=3):
    field = np.broadcast_to(np.asarray(vectors, float), (*FIXED.shape, 3))
    content = struct.pack(">i4iiih", (intent << 8) | 1, *FIXED.shape, 3, 3, 1, 1)
    content += b"".join(np.asarray(part, ">f4").tobytes() for part in geometry(FIXED)) + bytes(194)
    content += field.astype(">f4").tobytes(order="F") + bytes(20)
    content += struct.pack(">iq", 33, 7) + b"UNKNOWN" + struct.pack(">i", 10)
    for grid in (MOVING, FIXED):
        content += struct.pack(">i3i", 1, *grid.shape)
        content += b"".join(np.asarray(part, ">f4").tobytes() for part in geometry(grid)) + bytes(512)
    content += struct.pack(">iqiif", 13, 12, form, 1, 0.0)
    path.write_bytes(gzip.compress(content))
    return path


def test_a_warp_in_an_mgz_file_is_read_in_each_of_its_four_forms(tmp_path):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in FIXED.shape], indexing="ij"), -1)
    shift = np.array([1.0, 2.0, -0.5])
    for form, vectors in {0: index + shift, 1: shift}.items():
        found = moved(mgz(tmp_path / "w.mgz", vectors, form), points())
        assert np.abs(found - MOVING.to_points(INDEX + shift)).max() < 1e-4
    for form, vectors in {2: FIXED.to_points(index) * RAS + shift, 3: shift}.items():
        found = moved(mgz(tmp_path / "w.mgz", vectors, form), points())
        assert np.abs(found - points() - shift * RAS).max() < 1e-4
    with pytest.raises(ValueError, match="does not say that it is a warp"):
        moved(mgz(tmp_path / "w.mgz", shift, 1, intent=0), points())


@pytest.mark.parametrize("name", ["disp_0001_0002.nii.gz", "x.nii.gz", "disp_0001_0002.npz", "x.npz"])
def test_learn2regs_field_adds_voxels_to_the_fixed_voxels_index(tmp_path, name):
    index = np.stack(np.meshgrid(*[np.arange(float(n)) for n in FIXED.shape], indexing="ij"), -1)
    field = index @ np.diag([0.05, -0.04, 0.03]) + (1, -2, 0.5)
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, np.moveaxis(field, -1, 0))
    else:
        nibabel.save(nibabel.Nifti1Image(field.astype(np.float32), np.eye(4)), path)  # its header says nothing
    found = moved(path, points(), None if name.startswith("disp") else "learn2reg")
    assert np.abs(found - MOVING.to_points(INDEX * (1.05, 0.96, 1.03) + (1, -2, 0.5))).max() < 1e-4


def test_learn2regs_field_of_half_the_size_is_in_voxels_of_the_whole_one(tmp_path):
    field = np.broadcast_to(np.array([1, -2, 0.5])[:, None, None, None], (3, *(n // 2 for n in FIXED.shape)))
    np.savez(tmp_path / "disp_0001_0002.npz", field.astype(np.float16))
    found = moved(tmp_path / "disp_0001_0002.npz", points())
    assert np.abs(found - MOVING.to_points(INDEX + np.array([1, -2, 0.5]))).max() < 1e-4


@pytest.mark.parametrize("channels_first", [False, True])
def test_voxelmorphs_warp_adds_voxels_too(tmp_path, channels_first):
    field = np.broadcast_to(np.array([1, -2, 0.5]), (*FIXED.shape, 3))
    np.savez(tmp_path / "warp.npz", vol=np.moveaxis(field, -1, 0) if channels_first else field)
    found = moved(tmp_path / "warp.npz", points(), "voxelmorph")
    assert np.abs(found - MOVING.to_points(INDEX + np.array([1, -2, 0.5]))).max() < 1e-6


def x5(path, nodes, chains):
    with h5py.File(path, "w") as file:
        file.attrs["Format"], file.attrs["Version"] = "X5", np.uint16(1)
        for number, values in enumerate(nodes):
            node = file.create_group(f"TransformGroup/{number}")
            is_field = values.ndim == 4
            node.attrs["Type"], node.attrs["SubType"] = (
                ("nonlinear", "densefield") if is_field else ("linear", "affine")
            )
            node.attrs["Representation"] = "displacements" if is_field else "matrix"
            node["Transform"] = values
            if is_field:
                node["Domain/Mapping"] = np.diag([-1, -1, 1, 1]) @ FIXED.affine
        for number, chain in enumerate(chains):
            file.require_group("TransformChain")[str(number)] = chain
    return path


def test_x5_holds_ras_and_a_point_goes_through_its_chain_in_order(tmp_path):
    field = np.broadcast_to(np.array([1.0, 2, 3]), (*FIXED.shape, 3))
    first_field = (points() + np.array([-1, -2, 3])) @ MATRIX[:3, :3].T + MATRIX[:3, 3]
    found = moved(x5(tmp_path / "a.x5", [MATRIX_RAS, field], ["1/0"]), points())
    assert np.abs(found - first_field).max() < 1e-6
    alone = moved(x5(tmp_path / "b.x5", [MATRIX_RAS], []), points())
    assert np.abs(alone - points() @ MATRIX[:3, :3].T - MATRIX[:3, 3]).max() < 1e-9
    for nodes, chains in (([MATRIX_RAS, field], []), ([MATRIX_RAS, field], ["0", "1"])):
        with pytest.raises(ValueError, match=r"chains of 2 transforms: keep one"):
            moved(x5(tmp_path / "c.x5", nodes, chains), points())


def test_afnis_transforms_are_of_lps_and_of_images_along_the_axes_of_space(tmp_path):
    row = tmp_path / "a.aff12.1D"
    row.write_text("# 3dvolreg matrices (DICOM-to-DICOM, row-by-row):\n" + " ".join(map(str, MATRIX[:3].ravel())))
    places = PLUMB.to_points(INDEX[:9] / 2)
    found = moved(row, places, fixed=PLUMB, moving=PLUMB)
    assert np.abs(found - places @ MATRIX[:3, :3].T - MATRIX[:3, 3]).max() < 1e-9
    warp = nifti(tmp_path / "warp.nii.gz", (1, 2, 3), 0, PLUMB)
    assert np.abs(moved(warp, places, "afni", PLUMB, PLUMB) - places - (1, 2, 3)).max() < 1e-4
    with pytest.raises(ValueError, match="The moving image's axes are oblique"):
        moved(row, places, fixed=PLUMB, moving=MOVING)


def parameters(path, kind, numbers, **more):
    lines = [f'(Transform "{kind}")', f"(NumberOfParameters {len(numbers)})", "(FixedImageDimension 3)"]
    lines += ["(TransformParameters " + " ".join(f"{n:.10g}" for n in numbers) + ")"]
    path.write_text(
        "// of elastix\n" + "\n".join([*lines, *(f"({key} {value})" for key, value in more.items())]) + "\n"
    )
    return path


def test_elastix_composes_a_spline_with_the_file_that_it_starts_from(tmp_path):
    start = {"InitialTransformParameterFileName": '"NoInitialTransform"'}
    centre = FIXED.centre_mm
    angles = (0.1, -0.05, 0.2)
    middle = " ".join(map(str, centre))
    parameters(tmp_path / "T.0.txt", "EulerTransform", [*angles, 4, 5, 6], CenterOfRotationPoint=middle, **start)
    x, y, z = (Rotation.from_euler(axis, angle).as_matrix() for axis, angle in zip("xyz", angles))
    turned = (points() - centre) @ (z @ x @ y).T + centre + (4, 5, 6)  # ITK's order, ComputeZYX off
    assert np.abs(moved(tmp_path / "T.0.txt", points()) - turned).max() < 1e-6
    nodes = oblique((9, 10, 11), (8, 7, 6), (11, -7, 16), centre + np.array([4, 5, 6]))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in nodes.shape], indexing="ij"), -1)
    slope = np.array([[0.02, 0.01, -0.03], [0.0, 0.04, 0.01], [-0.02, 0.0, 0.01]])
    coefficients = nodes.to_points(index) @ slope.T  # splines of coefficients on a line are that line
    geometry = {"GridSize": nodes.shape, "GridIndex": (0, 0, 0), "GridSpacing": nodes.spacing_mm}
    geometry |= {"GridOrigin": nodes.origin_mm, "GridDirection": nodes.direction.T.ravel()}
    numbers = coefficients.transpose(3, 2, 1, 0).ravel()  # the first axis runs fastest
    text = {key: " ".join(map(str, value)) for key, value in geometry.items()}
    text |= {"InitialTransformParameterFileName": '"/elsewhere/T.0.txt"', "HowToCombineTransforms": '"Compose"'}
    path = parameters(tmp_path / "T.1.txt", "BSplineTransform", numbers, **text)
    assert np.abs(moved(path, points()) - turned - turned @ slope.T).max() < 1e-6
    added = parameters(
        tmp_path / "T.2.txt", "BSplineTransform", numbers, **(text | {"HowToCombineTransforms": '"Add"'})
    )
    with pytest.raises(ValueError, match="adds its transforms instead of composing"):
        moved(added, points())
    with pytest.raises(ValueError, match=r"SplineKernelTransform, which is not read .*WriteITKCompositeTransform"):
        moved(parameters(tmp_path / "T.3.txt", "SplineKernelTransform", [1.0]), points())


def shift(path, by, start):
    path.parent.mkdir(parents=True, exist_ok=True)
    return parameters(path, "TranslationTransform", by, InitialTransformParameterFileName=f'"{start}"')


def test_elastix_chain_is_found_by_absolute_and_relative_paths_and_beside_the_file_once_moved(tmp_path, monkeypatch):
    first = shift(tmp_path / "run" / "rigid" / "T.0.txt", (10, 0, 0), "NoInitialTransform")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    twice = f"{tmp_path}/run//rigid/T.0.txt"  # no comment, though it has two slashes
    for start in ("rigid/T.0.txt", "../rigid/T.0.txt", str(first), twice):  # of the name of the file itself
        second = shift(tmp_path / "run" / "affine" / "T.0.txt", (0, 1, 0), start)
        assert np.abs(moved(second, points()) - points() - (10, 1, 0)).max() < 1e-9, start
    shift(elsewhere / "kept" / "T.7.txt", (0, 0, 7), "NoInitialTransform")
    second = shift(tmp_path / "run" / "affine" / "T.1.txt", (0, 1, 0), "kept/T.7.txt")
    assert np.abs(moved(second, points()) - points() - (0, 1, 7)).max() < 1e-9, "from the working folder"
    second = shift(tmp_path / "run" / "rigid" / "T.1.txt", (0, 1, 0), "/gone/T.0.txt")
    assert np.abs(moved(second, points()) - points() - (10, 1, 0)).max() < 1e-9, "beside it"
    shift(tmp_path / "run" / "out" / "T.0.txt", (0, 0, 9), "NoInitialTransform")  # of a later run, into the same folder
    shift(tmp_path / "run" / "patient" / "T.0.txt", (10, 0, 0), "NoInitialTransform")
    renamed = shift(tmp_path / "run" / "patient" / "T.1.txt", (0, 1, 0), "out/T.0.txt")
    with pytest.raises(ValueError, match=r"out/T\.0\.txt in it may be .*out/T\.0\.txt or .*patient/T\.0\.txt: write"):
        moved(renamed, points())
    shutil.copy(tmp_path / "run" / "patient" / "T.0.txt", tmp_path / "run" / "out" / "T.0.txt")
    assert np.abs(moved(renamed, points()) - points() - (10, 1, 0)).max() < 1e-9, "of one content"
    bare = shift(tmp_path / "run" / "bare" / "T.1.txt", (0, 1, 0), "T.0.txt")
    shift(tmp_path / "run" / "T.0.txt", (0, 0, 9), "NoInitialTransform")  # around it, and not beside it
    with pytest.raises(FileNotFoundError, match=r"no file T\.0\.txt"):
        moved(bare, points())
    with pytest.raises(FileNotFoundError, match=r"no file /gone/T\.9\.txt, which the transform starts from \(.*T\.1"):
        moved(shift(tmp_path / "run" / "rigid" / "T.1.txt", (0, 1, 0), "/gone/T.9.txt"), points())
    with pytest.raises(ValueError, match="go round in a circle"):
        moved(shift(tmp_path / "alone" / "T.0.txt", (0, 1, 0), "T.0.txt"), points())


def test_what_may_be_of_several_tools_is_asked_for(tmp_path):
    matrix = rows(tmp_path / "a.mat", MATRIX_RAS)
    with pytest.raises(ValueError, match=r"a matrix of 4×4 numbers: say whose it is by --kind greedy .* or flirt"):
        moved(matrix, points())
    np.savez(tmp_path / "warp.npz", np.zeros((3, *FIXED.shape)))
    with pytest.raises(ValueError, match=r"holds arrays: say whose it is by --kind learn2reg or voxelmorph"):
        moved(tmp_path / "warp.npz", points())
    with pytest.raises(ValueError, match=r"intent code 0\): say whose it is by --kind learn2reg or voxelmorph"):
        moved(nifti(tmp_path / "field.nii.gz", (0, 0, 0), 0, axes=4), points())
    with pytest.raises(ValueError, match=r"--kind is one of itk, ants, .*, not 'spm'"):
        moved(matrix, points(), "spm")
    (tmp_path / "talairach.m3z").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"mri_warp_convert --inm3z"):
        moved(tmp_path / "talairach.m3z", points())


def test_a_transform_that_depends_on_its_images_is_not_read_without_them(tmp_path):
    path = rows(tmp_path / "a.mat", MATRIX_RAS)
    for kind in ("flirt", "learn2reg", "afni"):
        with pytest.raises(ValueError, match=rf"is of {kind}, and depends on its images: give --moving and --fixed"):
            read_any(path, kind=kind)
    assert np.abs(read_any(path, kind="greedy").alignment - MATRIX).max() < 1e-9
    spline = sitk.BSplineTransformInitializer(sitk.Image(12, 10, 8, sitk.sitkFloat32), (3, 3, 3))
    sitk.WriteTransform(spline, str(tmp_path / "spline.tfm"))
    with pytest.raises(ValueError, match=r"sampled at the voxels of its own fixed image .*: give --fixed.*convert"):
        read_any(tmp_path / "spline.tfm")


def junk(ending):
    def write(folder):
        (folder / f"x{ending}").write_text("no transform")
        return folder / f"x{ending}"

    return write


def flat(folder):
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([1, 0, 0, 0, 1, 0, 0, 0, 0])
    sitk.WriteTransform(transform, str(folder / "flat.tfm"))
    return folder / "flat.tfm"


def damaged(folder, kept):
    """An archive of which some bytes within its array are others, and of which these are kept."""
    np.savez_compressed(folder / "x.npz", vol=np.random.default_rng(0).random((*FIXED.shape, 3)))
    content = bytearray((folder / "x.npz").read_bytes())
    content[900:940] = bytes(40)
    (folder / "x.npz").write_bytes(content[kept])
    return folder / "x.npz"


BAD = {
    "text as .lta": (junk(".lta"), None, "no linear transform of FreeSurfer"),
    "text as .x5": (junk(".x5"), None, "no HDF5 file"),
    "text as .npz": (junk(".npz"), "learn2reg", "no archive of NumPy's"),
    "text as .mgz": (junk(".mgz"), None, "cannot be read"),
    "text as .nii.gz": (junk(".nii.gz"), "fnirt", "cannot be read"),
    "text as a matrix": (junk(".mat"), "greedy", "four rows of four numbers"),
    "text as flirt's": (junk(".mat"), "flirt", "four rows of four numbers"),
    "text as elastix's": (junk(".txt"), "elastix", "cannot be read as an ITK transform file"),
    "a singular matrix": (lambda d: rows(d / "x.mat", np.diag([1, 1, 0, 1])), "greedy", "is singular"),
    "another last row": (lambda d: rows(d / "x.mat", np.ones((4, 4))), "flirt", "end in the row 0 0 0 1"),
    "another size": (lambda d: nifti(d / "x.nii", (0, 0, 0), 0, PLUMB, 4), "learn2reg", "6×8×10 voxels, but the fixed"),
    "another array": (lambda d: np.savez(d / "x.npz", a=1) or d / "x.npz", "voxelmorph", "no array 'vol' but a"),
    "a singular .tfm": (flat, None, "is singular: it flattens space"),
    "a singular matrix of elastix": (
        lambda d: parameters(d / "T.0.txt", "AffineTransform", [1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3]),
        None,
        "is singular: it flattens space",
    ),
    "NaN of elastix": (
        lambda d: parameters(d / "T.0.txt", "TranslationTransform", [np.nan, 0, 0]),
        None,
        "NaN or infinite numbers in TransformParameters",
    ),
    "an infinite centre of elastix": (
        lambda d: parameters(d / "T.0.txt", "EulerTransform", [0] * 6, CenterOfRotationPoint="1 inf 2"),
        None,
        "NaN or infinite numbers in CenterOfRotationPoint",
    ),
    "a .npz that is cut off": (lambda d: damaged(d, slice(0, -90)), "voxelmorph", "or cut off or damaged"),
    "a .npz with a damaged array": (lambda d: damaged(d, slice(0, None)), "voxelmorph", "or cut off or damaged"),
    "NaN": (lambda d: nifti(d / "x.nii", (np.nan, 0, 0), 0, axes=4), "learn2reg", "NaN or infinite"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path, name):
    write, kind, message = BAD[name]
    with pytest.raises(ValueError, match=message) as error:
        moved(write(tmp_path), points(), kind)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_composite_with_a_spline_is_read_as_itk_evaluates_it(tmp_path):
    spline = sitk.BSplineTransformInitializer(sitk.Image(12, 10, 8, sitk.sitkFloat32), (3, 3, 3))
    spline.SetParameters(np.random.default_rng(1).normal(0, 1, spline.GetNumberOfParameters()).tolist())
    shift = sitk.TranslationTransform(3, (-FIXED.centre_mm + (6, 5, 4)).tolist())
    composite = sitk.CompositeTransform([spline, shift])
    sitk.WriteTransform(composite, str(tmp_path / "TransformParameters.0.h5"))
    whole = FIXED.to_points(np.rint(INDEX))
    expected = np.array([composite.TransformPoint(p) for p in whole.tolist()])
    assert np.abs(moved(tmp_path / "TransformParameters.0.h5", whole) - expected).max() < 1e-6
