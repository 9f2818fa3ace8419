"""Points carried from one image to the other, beside ITK."""

import json
from pathlib import Path

import numpy as np
import pytest
from bundle.__main__ import main
from bundle.commands.apply_points import apply_points
from bundle.io.images import write_displacement
from bundle.io.itk import write_transform
from bundle.io.points import read_points
from bundle.spatial import SpatialTransform
from tests.commands.carried import FIELD, FIXED, MOVING, RAS, everywhere, run, write_csv, write_fcsv, write_markups
from tests.spatial.oblique import linear_map


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("space", ["lps", "ras"])
def test_points_of_the_moving_image_come_to_where_itk_s_transform_started(
    folder, fixed_points, moving_points, space, separator
):
    sign = RAS if space == "ras" else 1
    points = write_csv(folder / "moving.csv", moving_points * sign, separator=separator)
    output, result = run(folder, points, space=space)
    rows = [line.split(separator) for line in output.read_text().splitlines()]
    assert rows[0] == ["name", "x", "y", "z", "note", "in_field"]
    assert [row[0] for row in rows[1:]] == [f"F-{n}" for n in range(12)]
    np.testing.assert_allclose(np.array([row[1:4] for row in rows[1:]], float) * sign, fixed_points, atol=2e-3)
    assert {(row[4], row[5]) for row in rows[1:]} == {("kept", "1")}
    assert result == {"points": 12, "beyond_field": 0}


def test_points_of_the_fixed_image_go_where_itk_takes_them(folder, fixed_points, moving_points):
    output, _ = run(folder, write_csv(folder / "fixed.csv", fixed_points), space="lps", from_="fixed")
    np.testing.assert_allclose(read_points(output, "lps").points_mm, moving_points, atol=2e-6)


def test_a_displacement_field_carries_the_points_that_its_transform_carries(
    folder, transform, fixed_points, moving_points
):
    write_displacement(transform.displacement_field(FIELD), FIELD, folder / "displacement.nii.gz")
    points = write_csv(folder / "moving.csv", moving_points)
    apply_points(str(folder / "displacement.nii.gz"), points, str(folder / "out.csv"), space="lps")
    np.testing.assert_allclose(read_points(folder / "out.csv", "lps").points_mm, fixed_points, atol=0.05)


@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_slicer_s_markups_keep_their_own_coordinate_system_and_all_else(folder, fixed_points, moving_points, system):
    sign = RAS if system == "RAS" else 1
    points = write_markups(folder / "m.mrk.json", moving_points * sign, coordinateSystem=system)
    output, _ = run(folder, points, ".mrk.json")
    markup = json.loads(output.read_text())["markups"][0]
    assert (markup["coordinateSystem"], markup["locked"]) == (system, True)
    assert "measurements" not in markup  # of the points as they were
    positions = [point["position"] for point in markup["controlPoints"]]
    assert positions.pop() is None
    np.testing.assert_allclose(np.array(positions) * sign, fixed_points, atol=2e-3)
    assert [point["label"] for point in markup["controlPoints"]][:2] == ["F-0", "F-1"]


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("1", 1), ("RAS", RAS), ("0", RAS), (None, RAS)])
def test_slicer_s_fiducial_lists_are_ras_unless_they_say_otherwise(folder, fixed_points, moving_points, system, sign):
    output, _ = run(folder, write_fcsv(folder / "m.fcsv", moving_points * sign, system), ".fcsv")
    np.testing.assert_allclose(read_points(output).points_mm, fixed_points, atol=2e-3)
    assert output.read_text().splitlines()[-1].endswith("F-11,,n1")


def test_a_point_beyond_the_field_is_flagged_in_every_format_and_said(folder, capsys):
    far = FIELD.to_points([[-40.0, 3, 3]])
    there = far @ linear_map()[:3, :3].T + linear_map()[:3, 3]
    csv, result = run(folder, write_csv(folder / "far.csv", there), space="lps")
    assert result["beyond_field"] == 1
    assert "1 of 1 points lie beyond the field" in capsys.readouterr().out
    assert csv.read_text().splitlines()[1].endswith(",kept,0")
    np.testing.assert_allclose(read_points(csv, "lps").points_mm, far, atol=1e-5)
    markups, _ = run(folder, write_markups(folder / "far.mrk.json", there), ".mrk.json")
    assert "beyond the field" in json.loads(markups.read_text())["markups"][0]["controlPoints"][0]["description"]
    fcsv, _ = run(folder, write_fcsv(folder / "far.fcsv", there), ".fcsv")
    assert "beyond the field" in fcsv.read_text().splitlines()[-1]
    fixed, result = run(folder, write_csv(folder / "far.csv", far), space="lps", from_="fixed")
    assert (result["beyond_field"], fixed.read_text().splitlines()[1][-1]) == (1, "0")


def test_landmarks_of_both_images_give_the_registration_error(folder, fixed_points, moving_points, capsys):
    reference = write_markups(folder / "reference.mrk.json", fixed_points + np.array((0, 3, 0)))
    _, result = run(folder, write_csv(folder / "m.csv", moving_points), space="lps", reference=reference)
    before = np.linalg.norm(moving_points - fixed_points - np.array((0, 3, 0)), axis=1)
    assert result["tre_before_mm"]["mean"] == pytest.approx(before.mean(), abs=1e-5)
    assert result["tre_before_mm"]["max"] == pytest.approx(before.max(), abs=1e-5)
    assert result["tre_after_mm"]["median"] == pytest.approx(3, abs=5e-3)
    assert "target registration error after: mean 3.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ending", "write"), [(".csv", write_csv), (".fcsv", write_fcsv), (".mrk.json", write_markups)]
)
def test_a_point_that_an_earlier_call_did_not_deform_stays_flagged(folder, tmp_path, ending, write):
    far, once, twice = (tmp_path / f"{name}{ending}" for name in ("far", "once", "twice"))
    write(far, FIELD.to_points([[9.0, 11, 8], [-40.0, 3, 3]]))
    space = {"space": "lps"} if ending == ".csv" else {}
    apply_points(str(folder / "transform.h5"), str(far), str(once), "fixed", **space)
    result = apply_points(str(everywhere(tmp_path)), str(once), str(twice), "fixed", **space)
    assert result["beyond_field"] == 0
    if ending == ".csv":
        assert [line[-1] for line in twice.read_text().splitlines()[1:]] == ["1", "0"]
    else:
        apply_points(str(folder / "transform.h5"), str(twice), str(once), "fixed", **space)
        assert once.read_text().count("beyond the field") == 1


def test_a_space_of_a_reference_that_is_not_given_is_refused(folder, moving_points, tmp_path):
    points = write_csv(folder / "m.csv", moving_points)
    with pytest.raises(ValueError, match="--reference_space is of a reference: give --reference"):
        apply_points(str(folder / "transform.h5"), points, str(tmp_path / "o.csv"), space="lps", reference_space="ras")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        ("x,y,z\n1,2,3\n", {}, "give --space lps or --space ras"),
        ("x,y,z\n1,2,3\n", {"space": "mni"}, "lps or ras, not 'mni'"),
        ("a,b,c\n1,2,3\n", {"space": "lps"}, "columns named x, y and z"),
        ("", {"space": "lps"}, "columns named x, y and z"),
        ("x,y,z\n1,2\n", {"space": "lps"}, "too few columns in row 2"),
        ("x,y,z\n1,2,q\n", {"space": "lps"}, "no numbers in row 2"),
        ("x,y,z\n1,2,nan\n", {"space": "lps"}, "NaN or an infinite number in row 2"),
        ("x,y,z\n1,2,3\n", {"space": "lps", "from_": "atlas"}, "--from is moving or fixed"),
    ],
)
def test_bad_points_are_refused_in_one_sentence_and_nothing_is_written(folder, tmp_path, content, options, sentence):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        apply_points(str(folder / "transform.h5"), str(tmp_path / "p.csv"), str(tmp_path / "out.csv"), **options)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_markups_and_lists_that_leave_their_place_open_are_refused(folder, moving_points):
    for changes, sentence in (
        ({"coordinateSystem": "LPS"}, "say that they are LPS, not RAS as given"),
        ({"coordinateSystem": "IJK"}, "save them as LPS"),
        ({"coordinateUnits": ["cm", "UCUM", "centimeter"]}, "not in mm"),
    ):
        points = write_markups(folder / "odd.mrk.json", moving_points, **changes)
        with pytest.raises(ValueError, match=sentence):
            run(folder, points, ".mrk.json", space="ras" if "say that" in sentence else None)
    with pytest.raises(ValueError, match="coordinate system 2"):
        run(folder, write_fcsv(folder / "odd.fcsv", moving_points, "2"), ".fcsv")
    (folder / "broken.mrk.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        run(folder, str(folder / "broken.mrk.json"), ".mrk.json")


def test_another_ending_of_the_output_or_another_number_of_landmarks_is_refused(folder, moving_points):
    points = write_csv(folder / "m.csv", moving_points)
    with pytest.raises(ValueError, match=r"must end in \.csv"):
        run(folder, points, ".fcsv", space="lps")
    few = write_csv(folder / "few.csv", moving_points[:5], "number,x,y,z,note")
    with pytest.raises(ValueError, match="hold 12: give the same landmarks"):
        run(folder, points, space="lps", reference=few)


def test_landmarks_are_told_by_their_labels_in_any_order(folder, fixed_points, moving_points, capsys):
    points = write_csv(folder / "m.csv", moving_points, "label,x,y,z,note")
    rows = (folder / "m.csv").read_text().splitlines()
    reference = folder / "reference.csv"
    carried = write_csv(folder / "f.csv", fixed_points, "Name,x,y,z,note")
    head, *of_fixed = Path(carried).read_text().splitlines()
    reference.write_text("\n".join([head, *of_fixed[:0:-1]]))  # the other way round, without the first
    _, result = run(folder, points, space="lps", reference=str(reference))
    assert result["tre_after_mm"]["max"] == pytest.approx(0, abs=5e-3)
    assert result["compared"] == result["points"] - 1 == len(rows) - 2
    assert f"1 of {len(rows) - 1} points have no landmark in the reference" in capsys.readouterr().out


@pytest.mark.parametrize("label", ["F-{}", "M-{}", "the same", ""])
def test_points_without_a_position_leave_their_landmark_out(folder, fixed_points, moving_points, label):
    paths = []
    for name, points, lost in (("m", moving_points, 1), ("r", fixed_points, 4)):
        path = Path(write_markups(folder / f"{name}.mrk.json", points))
        content = json.loads(path.read_text())
        controls = content["markups"][0]["controlPoints"]
        for n, control in enumerate(controls):
            control["label"] = (label if name == "r" else label.replace("M", "F")).format(n)
        controls[lost] |= {"positionStatus": "undefined"}
        path.write_text(json.dumps(content))
        paths.append(str(path))
    _, result = run(folder, paths[0], ".mrk.json", reference=paths[1])
    assert result["tre_after_mm"]["max"] == pytest.approx(0, abs=5e-3)
    assert result["compared"] == len(fixed_points) - 2


def test_landmarks_that_cannot_be_told_are_refused(folder, fixed_points, moving_points):
    other = [f"{n},{p[0]},{p[1]},{p[2]}" for n, p in zip("abcdefghijkl", fixed_points)]
    (folder / "other.csv").write_text("\n".join(["label,x,y,z", *other]))
    points = write_csv(folder / "m.csv", moving_points)
    with pytest.raises(ValueError, match="no landmark in common: give the same landmarks the same labels"):
        run(folder, points, space="lps", reference=str(folder / "other.csv"))
    (folder / "other.csv").write_text("\n".join(["label,x,y,z", other[0], *other[:11]]))
    with pytest.raises(ValueError, match=r"Point 1 is called 'F-0' in .*m\.csv and 'a' in"):
        run(folder, points, space="lps", reference=str(folder / "other.csv"))


def test_from_is_an_option_of_the_command_line(folder, fixed_points, monkeypatch):
    points = write_csv(folder / "fixed.csv", fixed_points)
    line = ["bundle", "apply_points", "--transform", str(folder / "transform.h5"), "--points", points]
    line += ["--output", str(folder / "cli.csv"), "--from", "fixed", "--space", "lps"]
    monkeypatch.setattr("sys.argv", line)
    main()
    expected, _ = run(folder, points, space="lps", from_="fixed")
    assert (folder / "cli.csv").read_text() == expected.read_text()


def test_points_that_were_carried_before_have_one_flag_and_keep_what_else_stands_in_a_row(folder, moving_points):
    points = folder / "again.csv"
    points.write_text("x,in_field,y,z\n" + "\n".join(f"{p[0]},7,{p[1]},{p[2]},more" for p in moving_points) + "\n")
    rows = [line.split(",") for line in run(folder, str(points), space="lps")[0].read_text().splitlines()]
    assert rows[0] == ["x", "in_field", "y", "z"]
    assert {(row[1], row[4]) for row in rows[1:]} == {("1", "more")}


def test_a_user_s_description_stays_beside_the_flag(folder):
    points = write_markups(folder / "own.mrk.json", FIELD.to_points([[-40.0, 3, 3]]))
    content = json.loads((folder / "own.mrk.json").read_text())
    content["markups"][0]["controlPoints"][0]["description"] = "mine"
    (folder / "own.mrk.json").write_text(json.dumps(content))
    output, _ = run(folder, points, ".mrk.json", from_="fixed")
    description = json.loads(output.read_text())["markups"][0]["controlPoints"][0]["description"]
    assert description.startswith("mine; beyond the field")
    fcsv = write_fcsv(folder / "own.fcsv", FIELD.to_points([[-40.0, 3, 3]]))
    (folder / "own.fcsv").write_text((folder / "own.fcsv").read_text().replace("F-0,,n1", "F-0,mine,n1"))
    assert ",mine; beyond the field" in run(folder, fcsv, ".fcsv", from_="fixed")[0].read_text()


@pytest.mark.parametrize("kind", ["Plane", "ROI"])
def test_markups_that_are_more_than_their_points_are_refused(folder, moving_points, kind):
    with pytest.raises(ValueError, match=f"hold a {kind}, whose size and axes"):
        run(folder, write_markups(folder / "roi.mrk.json", moving_points, type=kind), ".mrk.json")


@pytest.mark.parametrize("name", ["none.csv", "none.fcsv", "none.mrk.json"])
def test_a_file_without_points_is_refused(folder, name):
    writers = {"none.csv": write_csv, "none.fcsv": write_fcsv, "none.mrk.json": write_markups}
    with pytest.raises(ValueError, match="hold no points"):
        run(folder, writers[name](folder / name, []), name[4:], space="lps")


def test_points_beyond_a_field_without_an_alignment_are_said_to_stay(folder, transform, capsys):
    write_displacement(transform.displacement_field(FIELD), FIELD, folder / "displacement.nii.gz")
    points = write_csv(folder / "far.csv", np.array([[500.0, 500, 500]]))
    apply_points(str(folder / "displacement.nii.gz"), points, str(folder / "out.csv"), from_="fixed", space="lps")
    assert "1 of 1 points lie beyond the field: they stay where they are" in capsys.readouterr().out
    np.testing.assert_allclose(read_points(folder / "out.csv", "lps").points_mm, [[500, 500, 500]])


def test_a_transform_that_flattens_space_is_refused(folder, moving_points, tmp_path):
    write_transform(SpatialTransform(np.diag([1.0, 1, 0, 1]), None, FIXED, FIXED, MOVING), tmp_path / "flat.tfm")
    points = write_csv(folder / "m.csv", moving_points)
    with pytest.raises(ValueError, match=r"flat\.tfm\) is singular: it flattens space"):
        apply_points(str(tmp_path / "flat.tfm"), points, str(tmp_path / "out.csv"), space="lps")
    assert [path.name for path in tmp_path.iterdir()] == ["flat.tfm"]


def test_the_space_of_the_reference_may_be_another(folder, fixed_points, moving_points):
    points = write_markups(folder / "m.mrk.json", moving_points)
    reference = write_csv(folder / "ras.csv", fixed_points * RAS)
    _, result = run(folder, points, ".mrk.json", reference=reference, reference_space="ras")
    assert result["tre_after_mm"]["max"] < 5e-3
    markups = write_markups(folder / "reference.mrk.json", fixed_points)
    with pytest.raises(ValueError, match=r"reference\.mrk\.json\) say that they are LPS, not RAS as given"):
        run(folder, points, ".mrk.json", reference=markups, reference_space="ras")


def test_a_reference_that_does_not_say_its_space_counts_as_the_points_do(folder, fixed_points, moving_points):
    reference = write_csv(folder / "lps.csv", fixed_points)
    _, result = run(folder, write_markups(folder / "m.mrk.json", moving_points), ".mrk.json", reference=reference)
    assert result["tre_after_mm"]["max"] < 5e-3
    reference = write_csv(folder / "ras.csv", fixed_points * RAS)
    _, result = run(folder, write_fcsv(folder / "m.fcsv", moving_points * RAS, "RAS"), ".fcsv", reference=reference)
    assert result["tre_after_mm"]["max"] < 5e-3


ODD_MARKUPS = {
    "markups are words": ({"markups": ["x"]}, "a list of 'controlPoints' is none"),
    "points are an object": ({"markups": [{"controlPoints": {"position": [1, 2, 3]}}]}, "a list of 'controlPoints'"),
    "points are lists": ({"markups": [{"controlPoints": [[1, 2, 3]]}]}, "a list of 'controlPoints' is none"),
    "points are nothing": ({"markups": [{"controlPoints": None, "coordinateSystem": "LPS"}]}, "hold no points"),
    "a position is a word": (
        {"markups": [{"controlPoints": [{"position": "123"}], "coordinateSystem": "LPS"}]},
        "hold no numbers in row 1: 123",
    ),
    "a position is a number": (
        {"markups": [{"controlPoints": [{"position": 7}], "coordinateSystem": "LPS"}]},
        "hold no numbers in row 1: 7",
    ),
}


@pytest.mark.parametrize("name", ODD_MARKUPS)
def test_odd_markups_are_refused_in_one_sentence(folder, tmp_path, name):
    content, sentence = ODD_MARKUPS[name]
    (tmp_path / "odd.mrk.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=sentence) as error:
        run(folder, str(tmp_path / "odd.mrk.json"), ".mrk.json")
    assert "\n" not in str(error.value)
