import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from bundle.io import itk
from bundle.io.export import write_as
from bundle.io.images import write_displacement
from bundle.io.itk import grid_from_itk, image_to_itk, linear_from_itk, linear_to_itk, read_linear, write_transform
from bundle.io.itk_composites import read_transform
from bundle.spatial import Grid, SpatialTransform
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import oblique

FIXED = oblique((26, 31, 22), (-1.9, 1.4, 2.3), (11, -7, 16), (12, -21, 33))
MOVING = oblique((40, 34, 36), (1.3, -2.1, 1.7), (-8, 12, 5), (15, -18, 30))
FIELD = FIXED.canonical(2.1)
SKEWED = Grid(FIELD.shape, FIELD.affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


def smooth(shape, seed, sigma=3.0):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return noise / np.abs(noise).max()


def alignment_about(point):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (6, -4, 9), degrees=True).as_matrix() @ np.array(
        [[1.05, 0.04, 0], [0, 0.96, -0.03], [0.02, 0, 1.02]]
    )
    matrix[:3, 3] = point - matrix[:3, :3] @ point + (2.0, -1.5, 3.0)
    return matrix


@pytest.fixture(scope="module")
def found():
    """A transform of every kind at once: three grids, an affine, a smooth field of up to 3 voxels."""
    ddf = torch.from_numpy(3 * np.stack([smooth(FIELD.shape, seed) for seed in range(3)])).float()
    return SpatialTransform(alignment_about(FIXED.centre_mm), ddf, FIELD, FIXED, MOVING)


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(smooth(MOVING.shape, 9, 2.0)).float()[None]


@pytest.fixture(scope="module")
def files(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transforms")
    write_transform(found, folder / "transform.h5")
    write_displacement(found.displacement_field(), FIXED, folder / "displacement.nii.gz")
    return folder


def points_of(grid):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    return grid.to_points(index)


def within(grid, points):
    index = points @ grid.inverse[:3, :3].T + grid.inverse[:3, 3]
    return ((index >= -0.5) & (index < np.array(grid.shape) - 0.5)).all(-1)


def as_array(itk_image):
    return sitk.GetArrayFromImage(itk_image).transpose(2, 1, 0)


def resampled_by_itk(image, transform, fill=0.0, interpolator=sitk.sitkLinear):
    reference = image_to_itk(np.zeros(FIXED.shape, np.float32), FIXED)
    moving = image_to_itk(image[0].numpy(), MOVING)
    return as_array(sitk.Resample(moving, reference, transform, interpolator, fill, sitk.sitkFloat64))


# --- what other tools make of our files ---


@pytest.mark.parametrize("fill", [0.0, -1024.0])
def test_itk_resamples_with_transform_h5_as_we_do_at_every_voxel(found, image, files, fill):
    by_itk = resampled_by_itk(image, sitk.ReadTransform(str(files / "transform.h5")), fill)
    ours = found.resample(image, fill=fill)[0].numpy()
    assert np.abs(ours - found.without_field().resample(image, fill=fill)[0].numpy()).max() > 0.1  # the field matters
    assert 0.02 < (by_itk == fill).mean() < 0.5  # so does the border
    assert np.abs(ours - by_itk).max() < 1e-5 * float(image.max() - image.min())


def test_itk_takes_the_nearest_voxel_as_we_do_at_every_voxel(found, image, files):
    by_itk = resampled_by_itk(image, sitk.ReadTransform(str(files / "transform.h5")), -7.0, sitk.sitkNearestNeighbor)
    assert np.array_equal(found.resample(image, mode="nearest", fill=-7.0)[0].numpy(), by_itk.astype(np.float32))


def test_where_the_field_ends_inside_the_fixed_image_itk_resamples_as_we_do(image, tmp_path):
    ddf = torch.from_numpy(2 + np.stack([smooth((11, 13, 9), seed) for seed in range(3)])).float()
    grid = FIXED.crop((7, 9, 6), (17, 21, 14))
    transform = SpatialTransform(alignment_about(FIXED.centre_mm), ddf, grid, FIXED, MOVING)
    write_transform(transform, tmp_path / "transform.h5")
    by_itk = resampled_by_itk(image, sitk.ReadTransform(str(tmp_path / "transform.h5")))
    assert np.abs(transform.resample(image)[0].numpy() - by_itk).max() < 1e-5 * float(image.max() - image.min())


def test_itk_resamples_with_the_displacement_field_as_we_do(found, image, files):
    field = sitk.ReadImage(str(files / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    by_itk = resampled_by_itk(image, sitk.DisplacementFieldTransform(field))
    assert np.abs(found.resample(image)[0].numpy() - by_itk).max() < 1e-5 * float(image.max() - image.min())


def test_the_field_that_itk_reads_is_the_displacement_in_mm(found, files):
    field = sitk.ReadImage(str(files / "displacement.nii.gz"))
    assert field.GetSize() == FIXED.shape
    assert field.GetNumberOfComponentsPerPixel() == 3
    vectors = sitk.GetArrayFromImage(field).transpose(3, 2, 1, 0)
    assert np.abs(vectors - found.displacement_field().numpy()).max() < 1e-5
    assert np.allclose(grid_from_itk(field).affine, FIXED.affine, atol=1e-4)


def test_itk_samples_transform_h5_to_the_displacement_that_we_write(found, files):
    transform = sitk.ReadTransform(str(files / "transform.h5"))
    reference = image_to_itk(np.zeros(FIXED.shape, np.float32), FIXED)
    sampler = sitk.TransformToDisplacementFieldFilter()
    sampler.SetReferenceImage(reference)
    by_itk = sitk.GetArrayFromImage(sampler.Execute(transform)).transpose(3, 2, 1, 0)
    assert np.abs(by_itk - found.displacement_field().numpy()).max() < 1e-4


@pytest.mark.slow
def test_the_toolkit_itself_warps_with_our_nifti_field_as_we_do(found, image, files):
    itk = pytest.importorskip("itk")
    field = itk.imread(str(files / "displacement.nii.gz"), itk.Vector[itk.F, 3])
    assert field.GetImageDimension() == 3
    moving = itk.image_from_array(np.ascontiguousarray(image[0].numpy().transpose(2, 1, 0)))
    moving.SetOrigin(MOVING.origin_mm.tolist())
    moving.SetSpacing(MOVING.spacing_mm.tolist())
    moving.SetDirection(itk.matrix_from_array(MOVING.direction))
    warper = itk.WarpImageFilter[type(moving), type(moving), type(field)].New(moving)
    warper.SetDisplacementField(field)
    warper.SetOutputParametersFromImage(field)
    warper.Update()
    by_itk = itk.array_from_image(warper.GetOutput()).transpose(2, 1, 0)
    assert np.abs(found.resample(image)[0].numpy() - by_itk).max() < 1e-5 * float(image.max() - image.min())


# --- what we make of files ---


def test_a_transform_read_back_is_the_transform_written(found, files):
    again = read_transform(files / "transform.h5", FIXED, MOVING)
    points = points_of(FIXED.centred((13, 11, 12), 6.0))  # inside the field's grid and beyond it
    assert 0.1 < within(FIELD, points).mean() < 0.9
    assert again.field_grid.is_close(FIELD)
    assert np.abs(again.displacement_at(points) - found.displacement_at(points)).max() < 1e-6


def test_a_linear_transform_goes_through_a_file(tmp_path, found):
    linear = found.without_field()
    write_transform(linear, tmp_path / "linear.h5")
    again = read_transform(tmp_path / "linear.h5", FIXED, MOVING)
    assert again.ddf is None
    assert np.allclose(again.alignment, linear.alignment, atol=1e-12)
    assert np.allclose(read_linear(tmp_path / "linear.h5"), linear.alignment, atol=1e-12)
    assert np.allclose(linear_from_itk(linear_to_itk(linear.alignment)), linear.alignment, atol=1e-12)


def test_a_displacement_field_alone_goes_through_a_file(tmp_path, found, files):
    field = sitk.ReadImage(str(files / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    sitk.WriteTransform(sitk.DisplacementFieldTransform(field), str(tmp_path / "field.h5"))
    again = read_transform(tmp_path / "field.h5", FIXED, MOVING)
    assert np.array_equal(again.alignment, np.eye(4))
    assert np.abs(again.displacement_field() - found.displacement_field()).max() < 1e-4


def euler(degrees=(5, -3, 8), shift=(4, -2, 1), centre=(10, 20, 30)):
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(degrees).tolist())
    transform.SetTranslation([float(s) for s in shift])
    transform.SetCenter([float(c) for c in centre])
    return transform


def test_several_linear_transforms_read_as_their_product(tmp_path):
    composite = sitk.CompositeTransform([euler(), euler((-7, 2, 4), (0, 5, -6), (0, 0, 0)), euler((1, 2, 3))])
    sitk.WriteTransform(composite, str(tmp_path / "t.h5"))
    points = points_of(FIXED)[::7, ::7, ::7].reshape(-1, 3)
    by_itk = np.array([composite.TransformPoint(p.tolist()) for p in points])
    again = read_transform(tmp_path / "t.h5", FIXED, MOVING)
    assert np.allclose(points + again.displacement_at(points).numpy(), by_itk, atol=1e-8)
    linear = read_linear(tmp_path / "t.h5")
    assert np.allclose(points @ linear[:3, :3].T + linear[:3, 3], by_itk, atol=1e-8)


def field_transform(found):
    return sitk.DisplacementFieldTransform(
        image_to_itk(found.field_mm.movedim(0, -1).numpy().copy(), FIELD, is_vector=True)
    )


def spline():
    """A B-spline transform about the fixed image, of up to 3 mm."""
    transform = sitk.BSplineTransformInitializer(image_to_itk(np.zeros(FIXED.shape, np.float32), FIXED), [3, 4, 3])
    transform.SetParameters(np.random.default_rng(5).uniform(-3, 3, len(transform.GetParameters())).tolist())
    return transform


LINEAR = [
    "AffineTransform",
    "CenteredAffineTransform",
    "FixedCenterOfRotationAffineTransform",
    "ScalableAffineTransform",
]
LINEAR_OF_ONE_TYPE = [
    "CenteredEuler3DTransform",
    "ComposeScaleSkewVersor3DTransform",
    "Euler3DTransform",
    "QuaternionRigidTransform",
    "ScaleSkewVersor3DTransform",
    "ScaleVersor3DTransform",
    "Similarity3DTransform",
    "VersorRigid3DTransform",
    "VersorTransform",
]


def as_itk_composite(kind, path, found):
    """Write a composite as uniGradICON's: linear, displacement field, linear; read it back as the toolkit has it."""
    itk = pytest.importorskip("itk")
    write_transform(found.without_alignment(), path)
    (field_only,) = itk.transformread(str(path))
    composite = itk.CompositeTransform[itk.D, 3].New()
    for part in (linear(kind), itk.down_cast(field_only).GetNthTransform(1), linear(kind)):
        composite.AddTransform(part)
    itk.transformwrite([composite], str(path))
    return composite


def linear(kind):
    """A linear transform of ITK's of one kind, with parameters other than those it starts with."""
    itk = pytest.importorskip("itk")
    template = getattr(itk, kind)
    transform = template[(itk.D, 3) if kind in LINEAR else itk.D].New()
    parameters = itk.OptimizerParameters[itk.D](transform.GetNumberOfParameters())
    for i, value in enumerate(np.array(transform.GetParameters())):
        parameters[i] = float(value) + 0.01 * (i % 4 + 1)
    transform.SetParameters(parameters)
    return transform


@pytest.mark.parametrize("kind", [*LINEAR, *LINEAR_OF_ONE_TYPE])
@pytest.mark.parametrize("ending", [".h5", ".tfm"])
def test_every_linear_transform_that_itk_writes_reads_as_its_matrix(tmp_path, kind, ending):
    itk = pytest.importorskip("itk")
    transform, path = linear(kind), tmp_path / f"linear{ending}"
    itk.transformwrite([transform], str(path))
    points = points_of(FIXED)[::9, ::9, ::9].reshape(-1, 3)
    by_itk = np.array([list(transform.TransformPoint(p.tolist())) for p in points])
    assert np.abs(by_itk - points).max() > 0.1
    matrix = read_linear(path)
    assert np.allclose(points @ matrix[:3, :3].T + matrix[:3, 3], by_itk, atol=1e-8)
    assert np.allclose(read_transform(path, FIXED, MOVING).alignment, matrix, atol=1e-12)


@pytest.mark.parametrize("kind", [*LINEAR, *LINEAR_OF_ONE_TYPE])
def test_a_field_between_linear_transforms_of_any_kind_moves_the_fixed_voxels_as_itk_does(tmp_path, kind, found):
    composite = as_itk_composite(kind, tmp_path / "t.h5", found)
    again = read_transform(tmp_path / "t.h5", FIXED, MOVING)
    points = points_of(FIXED)
    first = linear_from_itk(linear(kind))  # the field is asked at what it maps to
    known = within(FIELD, points @ first[:3, :3].T + first[:3, 3])
    points = points[known][::37]
    assert len(points) > 200
    by_itk = np.array([list(composite.TransformPoint(p.tolist())) for p in points])
    assert np.abs(points + again.displacement_at(points).numpy() - by_itk).max() < 1e-6


MIXTURES = {
    "a field, then linear ones": lambda field: [euler(), euler((1, 2, 3)), field],
    "linear ones, then a field": lambda field: [field, euler(), euler((1, 2, 3))],
    "a field between linear ones": lambda field: [euler(), field, euler((1, 2, 3))],
    "two fields": lambda field: [field, field],
    "two fields between linear ones": lambda field: [euler(), field, euler((1, 2, 3)), field, euler((-2, 4, 1))],
    "a B-spline": lambda field: [spline()],
    "a B-spline, a field and linear ones": lambda field: [euler(), spline(), euler((1, 2, 3)), field],
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_composite_of_any_parts_warps_as_itk_warps(tmp_path, found, image, kind):
    composite = sitk.CompositeTransform(MIXTURES[kind](field_transform(found)))
    sitk.WriteTransform(composite, str(tmp_path / "t.h5"))
    again = read_transform(tmp_path / "t.h5", FIXED, MOVING)
    by_itk = resampled_by_itk(image, composite)
    moved = points_of(FIXED) + again.displacement_field().movedim(0, -1).numpy()
    view = within(MOVING, moved)
    if again.field_grid is not FIXED:  # the field itself ends half a voxel further out in ITK
        view &= within(again.field_grid, points_of(FIXED))
    assert view.mean() > 0.3
    assert np.abs(again.resample(image)[0].numpy() - by_itk)[view].max() < 1e-5 * float(image.max() - image.min())


def test_a_field_among_linear_transforms_is_kept_between_the_voxels_too(tmp_path, found):
    composite = sitk.CompositeTransform([euler(), field_transform(found), euler((1, 2, 3))])
    sitk.WriteTransform(composite, str(tmp_path / "t.h5"))
    again = read_transform(tmp_path / "t.h5", FIXED, MOVING)
    points = points_of(FIXED.centred((13, 11, 12), 6.0))
    index = again.field_grid.to_index(points)
    far = ((index < -1) | (index > np.array(FIELD.shape))).any(-1)
    points = points[within(again.field_grid, points) | far]
    assert 0.1 < far.mean() < 0.9
    by_itk = np.array([composite.TransformPoint(p.tolist()) for p in points])
    assert np.abs(points + again.displacement_at(points).numpy() - by_itk).max() < 1e-6


def test_parts_are_sampled_on_a_sheared_fixed_grid_too(tmp_path, found):
    affine = FIXED.affine.copy()
    affine[:3, 2] += 0.3 * affine[:3, 1]
    sheared = Grid(FIXED.shape, affine)
    composite = sitk.CompositeTransform([euler(), spline()])
    sitk.WriteTransform(composite, str(tmp_path / "t.h5"))
    again = read_transform(tmp_path / "t.h5", sheared, MOVING)
    points = points_of(sheared)[::5, ::5, ::5].reshape(-1, 3)
    by_itk = np.array([composite.TransformPoint(p.tolist()) for p in points])
    assert np.abs(points + again.displacement_at(points).numpy() - by_itk).max() < 1e-6


def several(ending):
    def write(folder):
        for i in (1, 2):
            sitk.WriteTransform(euler((i, 2, 3)), str(folder / f"{i}.tfm"))
        if ending == ".h5":
            itk = pytest.importorskip("itk")
            transforms = [itk.transformread(str(folder / f"{i}.tfm"))[0] for i in (1, 2)]
            itk.transformwrite(transforms, str(folder / "t.h5"))
            return folder / "t.h5"
        second = (folder / "2.tfm").read_text().split("\n", 1)[1].replace("#Transform 0", "#Transform 1")
        (folder / "t.tfm").write_text((folder / "1.tfm").read_text() + second)
        return folder / "t.tfm"

    return write


def two_dimensions(folder):
    sitk.WriteTransform(sitk.Euler2DTransform(), str(folder / "t.tfm"))
    return folder / "t.tfm"


def kernel(folder):
    itk = pytest.importorskip("itk")
    itk.transformwrite([itk.ThinPlateSplineKernelTransform[itk.D, 3].New()], str(folder / "t.tfm"))
    return folder / "t.tfm"


def with_text(name, content):
    def write(folder):
        (folder / name).write_text(content)
        return folder / name

    return write


UNREADABLE = {
    "a list as text": (several(".tfm"), "lists several transforms but not how they follow"),
    "a list in HDF5": (several(".h5"), "lists several transforms but not how they follow"),
    "2-D": (two_dimensions, "is of 2 dimensions, not of 3"),
    "a thin plate spline": (kernel, "holds a ThinPlateSplineKernelTransform, which cannot be evaluated here"),
    "MINC's": (with_text("t.xfm", "MNI Transform File\n"), "is MINC's, RAS and from moving to fixed"),
    "elastix's": (
        with_text("TransformParameters.0.txt", '(Transform "EulerTransform")\n'),
        "another tool.s (form, by|linear)",
    ),
    "FSL's": (with_text("flirt.mat", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"), "another tool.s (form, by|linear)"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("reader", [read_linear, lambda path: read_transform(path, FIXED, MOVING)])
def test_what_no_transform_can_be_made_of_is_refused_in_one_sentence(tmp_path, kind, reader):
    make, words = UNREADABLE[kind]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_initial_transform_that_flattens_space_is_refused(tmp_path):
    flat = sitk.AffineTransform(3)
    flat.SetMatrix((1, 0, 0, 0, 1, 0, 0, 0, 0))
    sitk.WriteTransform(flat, str(tmp_path / "flat.tfm"))
    with pytest.raises(ValueError, match="is singular: it flattens space"):
        read_linear(tmp_path / "flat.tfm")


def test_an_initial_transform_that_is_not_linear_is_refused(files):
    with pytest.raises(ValueError, match="is not linear: give a rigid or affine one"):
        read_linear(files / "transform.h5")
    with pytest.raises(ValueError, match="not linear"):
        linear_from_itk(sitk.BSplineTransform(3))


def test_another_tools_initial_transform_is_refused_with_the_way_that_leads_on(tmp_path):
    np.savetxt(tmp_path / "flirt.mat", np.eye(4))
    with pytest.raises(ValueError, match="another tool's linear one into that form by convert --to itk") as said:
        read_linear(tmp_path / "flirt.mat")
    assert "field" not in str(said.value)
    assert "--kind" not in str(said.value)
    composite = SpatialTransform(np.diag([1.1, 1, 1, 1]), None, FIXED, FIXED, MOVING)  # as convert writes it
    write_as(composite, tmp_path / "flirt.tfm", "itk", "")
    assert np.allclose(read_linear(tmp_path / "flirt.tfm"), composite.alignment)


@pytest.mark.parametrize("reader", [read_linear, lambda path: read_transform(path, FIXED, MOVING)])
def test_a_file_that_holds_no_transform_is_refused_with_its_name(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5\) does not exist"):
        reader(tmp_path / "nowhere.h5")
    for name in ("text.h5", "text.tfm", "text"):
        (tmp_path / name).write_text("no transform")
        with pytest.raises(ValueError, match="cannot be read as an ITK transform file"):
            reader(tmp_path / name)


# --- grids of ITK ---


def test_an_itk_image_lies_where_its_grid_says():
    array = np.random.default_rng(0).standard_normal(FIXED.shape).astype(np.float32)
    image = image_to_itk(array, FIXED)
    assert np.allclose(grid_from_itk(image).affine, FIXED.affine, atol=1e-10)
    assert image[3, 17, 5] == array[3, 17, 5]
    assert np.allclose(image.TransformIndexToPhysicalPoint((3, 17, 5)), FIXED.to_points((3, 17, 5)), atol=1e-10)


def test_the_noise_of_a_float32_header_is_no_reason_to_refuse_an_image_but_a_shear_is():
    noisy = nibabel.Nifti1Image(np.zeros(FIXED.shape, np.float32), FIXED.affine.astype(np.float32)).affine.copy()
    noisy[:3, :3] += np.random.default_rng(0).uniform(-1e-5, 1e-5, (3, 3))
    grid = Grid(FIXED.shape, noisy)
    array = np.zeros(FIXED.shape, np.float32)
    assert np.allclose(grid_from_itk(image_to_itk(array, grid)).affine, noisy, atol=1e-4)
    sheared = FIXED.affine.copy()
    sheared[:3, 0] += 0.05 * sheared[:3, 1]
    with pytest.raises(ValueError, match="not at right angles"):
        image_to_itk(array, Grid(FIXED.shape, sheared))


@pytest.mark.parametrize("grid", [FIELD, None, SKEWED], ids=["straight", "linear", "skewed"])
def test_a_transform_file_takes_no_more_room_than_is_looked_for(tmp_path, grid, monkeypatch):
    asked = []
    monkeypatch.setattr(itk, "check_room", lambda path, size: asked.append(size))
    ddf = None if grid is None else torch.zeros(3, *grid.shape, dtype=torch.float64)
    write_transform(SpatialTransform(np.eye(4), ddf, grid or FIXED, FIXED, MOVING), tmp_path / "t.h5")
    assert 0 < (tmp_path / "t.h5").stat().st_size <= asked[0]
