"""How the field is stored: small enough, and right where there is anatomy."""

from dataclasses import replace

import numpy as np
import pytest
from known_field import settings_of, write
from panreg.failures import Code, Failure
from panreg.objects.deformable.grid_fit import fit_vectors
from panreg.objects.deformable.reader import read_deformable_registration
from panreg.objects.deformable.vector_grid import VectorGrid, slabs
from panreg.registration.foreground import foreground
from panreg.settings import DeformableSettings, QualityGate, Settings
from synthetic import FIXED_AFFINE, FIXED_SHAPE, KnownTransform, displacement, points_of

POINTS = points_of(FIXED_SHAPE, FIXED_AFFINE)
BODY = (POINTS**2).sum(-1) < 30**2


def lattice(affine, seed=0, shape=(110, 110, 110)):
    """A smooth field and a rough one on top, as a network's: known between the points of a lattice."""
    k, j, i = np.indices(shape)
    points = np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3]
    rough = np.random.default_rng(seed).normal(0, 0.3, points.shape)
    grid = VectorGrid(affine, (displacement(points) + rough).astype(np.float32))
    return lambda points: np.nan_to_num(grid.at(points))


def rough_transform(registration, affine):
    transform = KnownTransform(registration.fixed, registration.moving, lattice(affine))
    transform.field_grid.affine = affine
    return transform


STRAIGHT = np.diag([2.0, 2, 2, 1])
STRAIGHT[:3, 3] = -109.3, -110.1, -108.7
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = 2 * FIXED_AFFINE[:3, :3] / np.linalg.norm(FIXED_AFFINE[:3, :3], axis=0)
OBLIQUE[:3, 3] = -OBLIQUE[:3, :3] @ [54.5, 54.5, 54.5]


def test_a_field_along_the_patients_axes_is_stored_on_its_own_points_and_loses_nothing(registration, tmp_path):
    changed = replace(registration, transform=rough_transform(registration, STRAIGHT), body=BODY)
    stored = write(changed, tmp_path / "x.dcm")
    assert stored.spacing_mm == 2.0
    assert stored.max_error_mm < 1e-4


def test_a_field_along_flipped_and_exchanged_axes_is_stored_on_its_own_points_too(registration, tmp_path):
    turned = np.eye(4)
    turned[:3, :3] = [[0, 0, -2.0], [-2, 0, 0], [0, 2, 0]]
    turned[:3, 3] = 108.1, 110.3, -109.9
    changed = replace(registration, transform=rough_transform(registration, turned), body=BODY)
    assert write(changed, tmp_path / "x.dcm").max_error_mm < 1e-4


def test_a_rough_oblique_field_is_fitted_within_the_bytes_and_the_error(registration, tmp_path):
    changed = replace(registration, transform=rough_transform(registration, OBLIQUE), body=BODY)
    stored = write(changed, tmp_path / "x.dcm", settings_of(max_megabytes=8))
    assert stored.spacing_mm < 2.0  # samples at the field's spacing would not do
    assert stored.covers == "image"
    assert stored.size_bytes <= 8e6
    assert stored.body_p99_error_mm <= 0.2
    assert stored.body_max_error_mm <= 0.5
    found = read_deformable_registration(tmp_path / "x.dcm").displacement_at(POINTS).numpy()
    errors = np.linalg.norm(found - changed.transform.field(POINTS), axis=-1)
    assert stored.body_p99_error_mm == pytest.approx(np.percentile(errors[BODY], 99), rel=1e-3)
    assert stored.body_max_error_mm == pytest.approx(errors[BODY].max(), rel=1e-3)
    assert stored.p99_error_mm == pytest.approx(np.percentile(errors, 99), rel=1e-3)
    assert stored.max_error_mm == pytest.approx(errors.max(), rel=1e-3)


def test_a_voxel_in_air_that_is_wrong_refuses_nothing_and_is_reported(registration, tmp_path):
    place = POINTS[2, 3, 4]
    assert not BODY[2, 3, 4]

    def field(points):
        spike = np.exp(-((points - place) ** 2).sum(-1, keepdims=True) / 0.4)
        return displacement(points) + 2 * spike

    transform = KnownTransform(registration.fixed, registration.moving, field)
    stored = write(replace(registration, transform=transform, body=BODY), tmp_path / "x.dcm")
    assert stored.body_max_error_mm < 0.05
    assert stored.max_error_mm > 0.5
    assert stored.spacing_mm == 2.0


def test_a_grid_that_must_be_small_lies_over_the_body_and_displaces_all_of_it(registration, tmp_path):
    low = (POINTS[..., 1] < -20) & BODY
    changed = replace(registration, transform=rough_transform(registration, OBLIQUE), body=low)
    stored = write(changed, tmp_path / "x.dcm", settings_of(max_megabytes=1.0))
    assert stored.covers == "body"
    assert stored.size_bytes <= 1e6
    field = read_deformable_registration(tmp_path / "x.dcm")
    found = field.displacement_at(POINTS).numpy()
    assert np.isfinite(found[low]).all()
    assert np.isnan(found).any()  # beyond it nothing is said
    errors = np.linalg.norm(found - changed.transform.field(POINTS), axis=-1)[low]
    assert np.percentile(errors, 99) == pytest.approx(stored.body_p99_error_mm, rel=1e-3)
    inverse = np.linalg.inv(field.deforming.grid.affine)
    first = POINTS[low] @ inverse[:3, :3].T + inverse[:3, 3]
    last = np.array(field.deforming.grid.vectors.shape[2::-1]) - 1
    assert (first > 0).all()  # no voxel of the body borders on what has no displacement
    assert (first < last).all()


def test_the_bytes_hold_whatever_the_field_and_what_can_not_be_kept_is_refused(registration, tmp_path):
    changed = replace(registration, transform=rough_transform(registration, OBLIQUE), body=BODY)
    for megabytes in (0.5, 2.0):
        gate = QualityGate(max_grid_error_mm=5.0)
        settings = Settings(deformable=DeformableSettings(max_megabytes=megabytes), quality=gate)
        assert write(changed, tmp_path / "x.dcm", settings).size_bytes <= megabytes * 1e6
    with pytest.raises(Failure, match="max_megabytes") as refused:
        write(changed, tmp_path / "y.dcm", settings_of(max_megabytes=0.01))
    assert refused.value.code is Code.E_OUTPUT
    assert not (tmp_path / "y.dcm").exists()


def test_fitted_vectors_are_the_least_squares_of_a_dense_system():
    shape, affine = (3, 4, 5), np.diag([2.0, 3.0, 4.0, 1.0])
    samples = np.random.default_rng(3).normal(size=(5, 7, 9, 3))
    (_, places), *more = slabs(samples.shape[:3], affine @ np.diag([0.5, 0.5, 0.5, 1]))
    assert not more
    found = fit_vectors(lambda points: samples if np.allclose(points, places) else None, affine, shape)

    def interpolation(n):
        matrix = np.zeros((2 * n - 1, n))
        for row in range(2 * n - 1):
            matrix[row, row // 2] += 0.5
            matrix[row, (row + 1) // 2] += 0.5
        return matrix

    system = np.kron(np.kron(*(interpolation(n) for n in shape[:2])), interpolation(shape[2]))
    expected = np.linalg.lstsq(system, samples.reshape(-1, 3), rcond=None)[0].reshape(*shape, 3)
    assert np.abs(found - expected).max() < 1e-5


def test_fitted_vectors_of_a_linear_field_are_its_samples():
    matrix = np.array([[0.1, 0.02, 0], [0, -0.05, 0.3], [0.2, 0, 0.1]])
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    found = fit_vectors(lambda points: points @ matrix + 1, affine, (5, 6, 7))
    (_, points), *_ = slabs((5, 6, 7), affine)
    assert np.abs(found - (points @ matrix + 1)).max() < 1e-4


@pytest.mark.parametrize("air", [0, -1000])
def test_the_body_is_what_stands_out_of_noisy_air_with_its_dark_holes(air):
    k, j, i = np.indices((40, 60, 50))
    radius = np.sqrt(((k - 20) * 3) ** 2 + ((j - 30) * 2) ** 2 + ((i - 25) * 2) ** 2)
    image = np.where(radius < 45, 400, 0) + np.where(radius < 30, -390, 0) + np.where(radius < 20, 300, 0)
    noise = np.abs(np.random.default_rng(0).normal(0, 12, image.shape))
    found = foreground((image + noise + air).astype(np.float32), (2, 2, 3))
    body = radius < 45
    assert 2 * (found & body).sum() / (found.sum() + body.sum()) > 0.93
    assert found[radius < 35].all()
    assert not found[radius > 55].any()


def test_of_an_image_without_contrast_everything_counts():
    assert foreground(np.full((4, 5, 6), 7, np.float32), (2, 2, 2)).all()


def test_the_body_of_a_real_head_holds_its_brain(head):
    values, affine = head
    image = values.transpose(2, 1, 0)
    found = foreground(image, tuple(np.linalg.norm(affine[:3, :3], axis=0)))
    bright = image > np.percentile(image, 90)
    assert found[bright].mean() > 0.99
    assert 0.2 < found.mean() < 0.6
