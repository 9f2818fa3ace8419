"""ANTs through antspyx."""

import numpy as np
import pytest
from bundle.io.export import write_as
from tests.interop.pair import distance, resampled
from tests.interop.table import named

ants = pytest.importorskip("ants")
TOOL = named("antspyx")


def by_ants(pair, files):
    def resample(axis):
        fixed, moving = ants.image_read(pair.fixed), ants.image_read(pair.moving(axis))
        return ants.apply_transforms(fixed, moving, files, interpolator="linear", defaultvalue=-1e6).numpy()

    return resampled(pair, resample)


@pytest.mark.parametrize(("form", "ending"), [("itk", ".h5"), ("itk", ".nii.gz"), ("ants", ".nii.gz")])
def test_ants_reads_the_whole_transform(pair, tmp_path, cell, form, ending):
    path = str(tmp_path / f"T{ending}")
    write_as(pair.transform, path, form, pair.fixed)
    mm = distance(pair, by_ants(pair, [path]), pair.targets(pair.transform))
    cell("read by them", TOOL, f"`{form}` `{ending}`", mm)


@pytest.mark.parametrize(("form", "ending"), [("itk", ".h5"), ("itk", ".tfm"), ("ants", ".mat")])
def test_ants_reads_a_linear_transform(pair, tmp_path, cell, form, ending):
    path = str(tmp_path / f"T{ending}")
    write_as(pair.linear, path, form, pair.fixed)
    mm = distance(pair, by_ants(pair, [path]), pair.targets(pair.linear))
    cell("read by them", TOOL, f"`{form}` `{ending}`, linear", mm)


def test_ants_takes_points_where_we_take_them(pair, tmp_path, cell):
    import pandas

    path = str(tmp_path / "T.h5")
    write_as(pair.transform, path, "itk", pair.fixed)
    points = pair.points()[2:-2:7, 2:-2:7, 2:-2:7].reshape(-1, 3)
    moved = ants.apply_transforms_to_points(3, pandas.DataFrame(points, columns=list("xyz")), [path])
    expected = points + pair.transform.displacement_at(points).numpy()
    cell("read by them", TOOL, "`itk` `.h5`, points", float(np.abs(moved[list("xyz")].to_numpy() - expected).max()))


@pytest.fixture(scope="module")
def registered(pair, tmp_path_factory):
    """Files of a registration of the fixed image to a turned copy of itself, short but deformable."""
    folder = tmp_path_factory.mktemp("ants")
    fixed = ants.image_read(pair.fixed)
    moving = ants.resample_image_to_target(fixed, ants.image_read(pair.moving("x")), "linear")
    options = {"aff_iterations": (20, 10), "aff_shrink_factors": (2, 1), "aff_smoothing_sigmas": (1, 0)}
    found = [
        ants.registration(
            fixed, moving, "SyN", outprefix=str(folder / name), reg_iterations=(10, 5), random_seed=1, **options, **more
        )["fwdtransforms"]
        for name, more in {"parts": {}, "whole": {"write_composite_transform": True}}.items()
    ]
    return {"parts": found[0], "whole": found[1]}


def test_we_read_what_ants_writes(pair, registered, cell):
    warp, matrix = registered["parts"]
    composite = registered["whole"]
    composite = composite if isinstance(composite, str) else composite[0]
    for file, name in ((warp, "`1Warp.nii.gz`"), (matrix, "`0GenericAffine.mat`"), (composite, "`Composite.h5`")):
        ours = pair.targets(pair.read(file))
        assert np.abs(ours - pair.points()).max() > 0.2
        cell("read by us", TOOL, name, distance(pair, by_ants(pair, [file]), ours))
