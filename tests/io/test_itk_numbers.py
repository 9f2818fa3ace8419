"""Transform files with too few numbers, too many, or what is none: refused before ITK makes something of them."""

import h5py
import numpy as np
import pytest
import scipy.io
import SimpleITK as sitk  # noqa: N813
from bundle.io.itk_numbers import OF_THREE_DIMENSIONS
from bundle.io.transforms import read_any
from bundle.spatial import Grid

HEAD = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}_double_3_3\n"
EULER = [0.1, 0.0, 0.0, 4.0, 5.0, 6.0]


def text(folder, parameters, fixed="1 2 3", kind="Euler3DTransform"):
    lines = HEAD.format(kind)
    lines += f"Parameters: {' '.join(map(str, parameters))}\n" if parameters is not None else ""
    lines += f"FixedParameters: {fixed}\n" if fixed is not None else ""
    (folder / "t.tfm").write_text(lines)
    return folder / "t.tfm"


def matlab(folder, parameters, kind="Euler3DTransform"):
    values = {f"{kind}_double_3_3": np.array(parameters, float)[:, None], "fixed": np.zeros((3, 1))}
    scipy.io.savemat(folder / "t.mat", values, format="4")
    return folder / "t.mat"


def hdf5(folder, parameters):
    sitk.WriteTransform(sitk.Euler3DTransform(), str(folder / "t.h5"))
    with h5py.File(folder / "t.h5", "r+") as file:
        del file["TransformGroup/0/TransformParameters"]
        file["TransformGroup/0/TransformParameters"] = np.array(parameters, float)
    return folder / "t.h5"


def refused(path, why):
    with pytest.raises(ValueError, match=why) as caught:
        read_any(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [text, matlab, hdf5])
def test_too_few_numbers_too_many_and_nan_are_refused_in_every_form_of_the_file(tmp_path, write):
    expected = sitk.Euler3DTransform((0.0, 0.0, 0.0), *EULER[:3], EULER[3:])
    found = read_any(write(tmp_path, EULER))
    if write is not text:
        assert found.displacement_at(np.array([[7.0, 8.0, 9.0]])).numpy()[0] + (7, 8, 9) == pytest.approx(
            expected.TransformPoint((7.0, 8.0, 9.0))
        )
    refused(write(tmp_path, EULER[:5]), "it holds 5 Parameters where an Euler3DTransform has 6")
    refused(write(tmp_path, [*EULER, 7.0]), "it holds 7 Parameters where an Euler3DTransform has 6")
    refused(write(tmp_path, [*EULER[:5], np.nan]), "NaN or infinite|'nan' where a number must be")


@pytest.mark.parametrize("kind", OF_THREE_DIMENSIONS)
def test_one_number_more_or_less_is_refused_of_every_linear_transform(tmp_path, kind):
    count = OF_THREE_DIMENSIONS[kind][0]
    for wrong in (count - 1, count + 1):
        refused(text(tmp_path, [0.5] * wrong, kind=kind), f"it holds {wrong} Parameters where an? {kind} has {count}")


@pytest.mark.parametrize(
    ("parameters", "fixed", "why"),
    [
        (EULER, None, "it holds 0 FixedParameters where an Euler3DTransform has 3 or 4"),  # ITK: the identity
        (EULER, "1 2", "it holds 2 FixedParameters"),
        (EULER, "1 2 nan", "it holds 'nan' where a number must be"),
        (None, "1 2 3", "it holds 0 Parameters"),
        ([*EULER[:5], "6,"], "1 2 3", "it holds '6,' where a number must be"),
        ([*EULER[:5], "inf"], "1 2 3", "it holds 'inf' where a number must be"),
    ],
)
def test_lines_that_are_missing_or_hold_what_is_no_number_are_refused(tmp_path, parameters, fixed, why):
    refused(text(tmp_path, parameters, fixed), why)


@pytest.mark.parametrize("fixed", ["1 2 3", "1 2 3 0"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_of_old_versions_and_of_windows_are_read_as_itk_reads_them(tmp_path, fixed, end):
    path = text(tmp_path, EULER, fixed)
    path.write_bytes(path.read_text().replace("\n", end).encode())
    point = np.array([[7.0, 8.0, 9.0]])
    moved = point + read_any(path).displacement_at(point).numpy()
    assert moved[0] == pytest.approx(sitk.ReadTransform(str(path)).TransformPoint(tuple(point[0])))


def test_a_part_of_a_composite_is_counted_too(tmp_path):
    composite = sitk.CompositeTransform([sitk.Euler3DTransform(), sitk.AffineTransform(3)])
    sitk.WriteTransform(composite, str(tmp_path / "c.tfm"))
    read_any(tmp_path / "c.tfm")
    content = (tmp_path / "c.tfm").read_text().replace("Parameters: 1 0 0 0", "Parameters: 1 0 0")
    (tmp_path / "c.tfm").write_text(content)
    refused(tmp_path / "c.tfm", "it holds 11 Parameters where an AffineTransform has 12")


def test_a_field_with_nan_in_a_transform_file_is_refused(tmp_path):
    values = np.zeros((4, 5, 6, 3))
    values[1, 2, 3, 0] = np.nan
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(values, isVector=True))
    sitk.WriteTransform(field, str(tmp_path / "f.h5"))
    refused(tmp_path / "f.h5", "NaN or infinite numbers")


# --- FreeSurfer's ---

LTA = "type      = {}\nnxforms   = 1\nmean      = 0 0 0\nsigma     = 1\n1 4 4\n{}\nsrc volume info\nvalid = 0\n"
ROWS = "1 0 0 4\n0 1 0 5\n0 0 1 6\n0 0 0 1"


@pytest.mark.parametrize(
    ("kind", "rows", "why"),
    [
        (1, ROWS.replace(" 4", ""), "not of four rows of four numbers"),
        (1, ROWS.replace(" 4", " 4 9"), "not of four rows of four numbers"),
        (1, ROWS.replace(" 4", " x"), "not of four rows of four numbers"),
        (1, ROWS.replace(" 4", " nan"), "must hold finite numbers"),
        (2, ROWS, "of type 2: one of type 0 or 1"),
        (14, ROWS, "of type 14: one of type 0 or 1"),
        (21, ROWS, "of type 21: one of type 0 or 1"),
    ],
)
def test_an_lta_of_another_type_or_with_other_numbers_is_refused(tmp_path, kind, rows, why):
    (tmp_path / "t.lta").write_text(LTA.format(kind, rows))
    with pytest.raises(ValueError, match=why) as caught:
        read_any(tmp_path / "t.lta", Grid((5, 6, 7), np.eye(4)), Grid((6, 5, 4), np.eye(4)))
    assert str(tmp_path / "t.lta") in str(caught.value)
