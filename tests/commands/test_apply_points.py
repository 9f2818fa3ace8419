"""Points and surfaces carried from one image to the other, beside ITK."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from bundle.__main__ import main
from bundle.commands.apply_points import apply_points
from bundle.io.images import write_displacement
from bundle.io.itk import write_transform
from bundle.io.points import read_points
from bundle.io.points.surfaces import _vtk
from bundle.spatial import SpatialTransform
from scipy.spatial.transform import Rotation
from tests.spatial.oblique import linear_map, oblique, random_points, smooth_ddf

FIELD = oblique((19, 23, 17), (2.2, 1.7, 2.9), (4, 7, -12), (13.0, -20.0, 29.0))
FIXED, MOVING = oblique((11, 9, 13), (1.6, 2.1, 1.3)), oblique((15, 12, 18), (1.9, 2.3, 1.2), (-6, 15, 8))
RAS = np.array([-1, -1, 1])
MARKUPS = {
    "@schema": "markups-schema-v1.0.3.json#",
    "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": True}],
}


@pytest.fixture(scope="module")
def transform():
    return SpatialTransform(linear_map(), smooth_ddf(FIELD.shape, 3), FIELD, FIXED, MOVING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, transform):
    path = tmp_path_factory.mktemp("points")
    write_transform(transform, path / "transform.h5")
    return path


@pytest.fixture(scope="module")
def fixed_points():
    return random_points(FIXED, 1, 12)


@pytest.fixture(scope="module")
def moving_points(folder, fixed_points):
    """Where ITK takes the fixed points."""
    by_itk = sitk.ReadTransform(str(folder / "transform.h5"))
    return np.array([by_itk.TransformPoint(point) for point in fixed_points.tolist()])


def write_csv(path, points, header="name,x,y,z,note", separator=","):
    rows = [header.replace(",", separator)]
    rows += [separator.join([f"p{n}", *(f"{v:.9f}" for v in point), "kept"]) for n, point in enumerate(points)]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def write_markups(path, points, **changes):
    content = json.loads(json.dumps(MARKUPS))
    controls = [{"id": str(n), "label": f"F-{n}", "position": list(p)} for n, p in enumerate(points)]
    controls.append({"id": "x", "label": "not placed", "position": None, "positionStatus": "undefined"})
    content["markups"][0] |= {"controlPoints": controls, "measurements": [{"name": "length", "value": 1}]} | changes
    path.write_text(json.dumps(content))
    return str(path)


def write_fcsv(path, points, system="LPS"):
    lines = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}"] if system else []
    lines.append("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID")
    lines += [f"{n},{p[0]},{p[1]},{p[2]},0,0,0,1,1,1,0,F-{n},,n1" for n, p in enumerate(points)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run(folder, points, ending=".csv", **options):
    output = folder / f"out{ending}"
    result = apply_points(str(folder / "transform.h5"), points, str(output), **options)
    return output, result


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
    assert [row[0] for row in rows[1:]] == [f"p{n}" for n in range(12)]
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


def gifti(points, **meta):
    vertices = nibabel.gifti.GiftiDataArray(
        points.astype(np.float32), "NIFTI_INTENT_POINTSET", meta=nibabel.gifti.GiftiMetaData(meta)
    )
    faces = nibabel.gifti.GiftiDataArray(np.array([[0, 1, 2], [1, 2, 3]], np.int32), "NIFTI_INTENT_TRIANGLE")
    return nibabel.gifti.GiftiImage(darrays=[vertices, faces])


def test_the_vertices_of_a_gifti_surface_are_ras_and_its_faces_stay(folder, fixed_points, moving_points):
    nibabel.save(gifti(moving_points * RAS), folder / "m.surf.gii")
    output, _ = run(folder, str(folder / "m.surf.gii"), ".surf.gii")
    vertices, faces = nibabel.load(output).darrays
    np.testing.assert_allclose(vertices.data * RAS, fixed_points, atol=2e-3)
    assert faces.data.tolist() == [[0, 1, 2], [1, 2, 3]]


def test_a_surface_in_freesurfer_s_own_space_is_refused(folder, moving_points):
    nibabel.save(gifti(moving_points, VolGeomC_R="0.5", VolGeomC_A="-12.0", VolGeomC_S="3"), folder / "tkr.gii")
    with pytest.raises(ValueError, match="--to-scanner"):
        run(folder, str(folder / "tkr.gii"), ".gii")


@pytest.mark.parametrize("to_ras", [np.eye(4), np.eye(4) + 12 * np.eye(4, k=3)])
def test_a_surface_of_the_scanner_s_space_is_taken_as_it_is_whatever_leads_on_from_it(
    folder, fixed_points, moving_points, to_ras
):
    """As mris_convert --to-scanner writes it: the matrix leads to FreeSurfer's own space."""
    image = gifti(moving_points * RAS, VolGeomC_R="0.5", VolGeomC_A="-12.0", VolGeomC_S="3")
    image.darrays[0].coordsys = nibabel.gifti.GiftiCoordSystem(1, 0, to_ras)
    nibabel.save(image, folder / "scanner.gii")
    output, _ = run(folder, str(folder / "scanner.gii"), ".gii")
    np.testing.assert_allclose(nibabel.load(output).darrays[0].data * RAS, fixed_points, atol=2e-3)
    image.darrays[0].coordsys = nibabel.gifti.GiftiCoordSystem(0, 1, np.eye(4) + 12 * np.eye(4, k=3))
    nibabel.save(image, folder / "tkr.gii")
    with pytest.raises(ValueError, match="carries a matrix to another space"):
        run(folder, str(folder / "tkr.gii"), ".gii")


def vtk_surface(points):
    vtk = _vtk("a test's")  # its parts that need no screen
    numpy_to_vtk = vtk.numpy_support.numpy_to_vtk
    surface, placed, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    placed.SetData(numpy_to_vtk(points.astype(np.float32), deep=True))
    for n in range(len(points) - 2):
        cells.InsertNextCell(3, (n, n + 1, n + 2))
    surface.SetPoints(placed)
    surface.SetPolys(cells)
    thickness = numpy_to_vtk(np.arange(len(points), dtype=np.float32), deep=True)
    thickness.SetName("thickness")
    surface.GetPointData().AddArray(thickness)
    return vtk, surface


@pytest.mark.parametrize(
    ("ending", "writer", "reader"),
    [
        (".vtk", "vtkPolyDataWriter", "vtkPolyDataReader"),
        (".vtp", "vtkXMLPolyDataWriter", "vtkXMLPolyDataReader"),
        (".ply", "vtkPLYWriter", "vtkPLYReader"),
    ],
)
def test_the_vertices_of_a_vtk_surface_move_and_its_cells_stay(
    folder, fixed_points, moving_points, ending, writer, reader
):
    vtk, surface = vtk_surface(moving_points * RAS)
    written = getattr(vtk, writer)()
    written.SetInputData(surface)
    written.SetFileName(str(folder / f"m{ending}"))
    written.Write()
    with pytest.raises(ValueError, match="give --space lps or --space ras"):
        run(folder, str(folder / f"m{ending}"), ending)
    output, _ = run(folder, str(folder / f"m{ending}"), ending, space="ras")
    read = getattr(vtk, reader)()
    read.SetFileName(str(output))
    read.Update()
    found = read.GetOutput()
    vertices = np.array([found.GetPoint(n) for n in range(found.GetNumberOfPoints())])
    np.testing.assert_allclose(vertices * RAS, fixed_points, atol=2e-3)
    assert found.GetNumberOfCells() == 10
    assert read_points(output).space == "ras"  # it says so now
    if ending != ".ply":
        assert [found.GetPointData().GetArray("thickness").GetValue(n) for n in range(3)] == [0, 1, 2]
        assert found.GetPointData().GetArray("in_field").GetRange() == (1, 1)


def written_by_vtk(folder, name, moving_points, form, surface=None):
    """Write a surface by VTK itself; ``form`` sets what it is written as."""
    ending = name[name.rindex(".") :]
    vtk, plain = vtk_surface(moving_points * RAS)
    kinds = {".vtk": "PolyData", ".vtp": "XMLPolyData", ".stl": "STL", ".ply": "PLY"}
    writer = getattr(vtk, f"vtk{kinds[ending]}Writer")()
    writer.SetInputData(surface or plain)
    writer.SetFileName(str(folder / name))
    form(writer)
    assert writer.Write()
    return str(folder / name)


def older_binary(writer):
    writer.SetFileVersion(42)
    writer.SetFileTypeToBinary()
    writer.SetHeader("pial of a person")


def newer_text(writer):
    writer.SetFileVersion(51)
    writer.SetFileTypeToASCII()
    writer.SetHeader("pial of a person SPACE=RAS")


@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("a.vtk", older_binary, [b"Version 4.2\npial of a person SPACE=RAS\nBINARY\n"]),
        ("a.vtk", newer_text, [b"Version 5.1\npial of a person SPACE=RAS\nASCII\n"]),
        ("a.stl", lambda w: (w.SetFileTypeToBinary(), w.SetHeader("pial")), [b"pial SPACE=RAS\0"]),
        ("a.stl", lambda w: (w.SetFileTypeToASCII(), w.SetHeader("pial")), [b"solid pial SPACE=RAS\n facet"]),
        ("a.vtp", lambda w: w.SetDataModeToAscii(), [b'format="ascii"']),
        ("a.vtp", lambda w: w.SetDataModeToBinary(), [b'format="binary"']),
        ("a.ply", lambda w: w.SetFileTypeToASCII(), [b"format ascii"]),
        (
            "a.ply",
            lambda w: (w.SetDataByteOrderToBigEndian(), w.AddComment("of a person"), w.AddComment("SPACE=RAS")),
            [b"format binary_big_endian", b"comment of a person\n", b"comment SPACE=RAS\n"],
        ),
        ("a.ply", lambda w: w.SetDataByteOrderToLittleEndian(), [b"format binary_little_endian"]),
    ],
)
def test_a_surface_is_written_as_its_source_is_with_its_title(folder, fixed_points, moving_points, name, form, words):
    output, _ = run(folder, written_by_vtk(folder, name, moving_points, form), name[1:], space="ras")
    content = output.read_bytes()
    for each in words:
        assert content.count(each) >= 1
    assert content.count(b"SPACE=") <= 1
    found = read_points(output)
    assert found.space == "ras"
    places = np.unique(np.round(found.points_mm, 2), axis=0)  # a .stl holds a vertex for each of its triangles
    np.testing.assert_allclose(places, np.unique(np.round(fixed_points, 2), axis=0), atol=0.02)


@pytest.mark.parametrize("components", [3, 4])
def test_the_colours_of_a_ply_surface_stay(folder, moving_points, components):
    vtk, surface = vtk_surface(moving_points * RAS)
    colours = np.random.default_rng(0).integers(0, 255, (len(moving_points), components)).astype(np.uint8)
    of_faces = np.random.default_rng(1).integers(0, 255, (surface.GetNumberOfCells(), 3)).astype(np.uint8)
    for data, values in ((surface.GetPointData(), colours), (surface.GetCellData(), of_faces)):
        array = vtk.numpy_support.numpy_to_vtk(values, deep=True)
        array.SetName("RGB")
        data.AddArray(array)
    points = written_by_vtk(
        folder, "c.ply", moving_points, lambda w: (w.SetArrayName("RGB"), w.SetEnableAlpha(components == 4)), surface
    )
    output, _ = run(folder, points, ".ply", space="ras")
    reader = vtk.vtkPLYReader()
    reader.SetFileName(str(output))
    reader.Update()
    found, to_numpy = reader.GetOutput(), vtk.numpy_support.vtk_to_numpy
    name = "RGB" if components == 3 else "RGBA"
    assert np.array_equal(to_numpy(found.GetPointData().GetArray(name)), colours)
    assert np.array_equal(to_numpy(found.GetCellData().GetArray("RGB")), of_faces)


@pytest.mark.parametrize("which", [("Point",), ("Cell",), ("Point", "Cell")])
def test_the_normals_of_a_surface_are_those_of_its_new_place(folder, moving_points, tmp_path, which):
    plane = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    vtk, surface = vtk_surface(plane)
    data = [getattr(surface, f"Get{of}Data")() for of in which]
    for of, count in zip(data, (4, 2) if which[0] == "Point" else (2,)):
        normals = vtk.numpy_support.numpy_to_vtk(np.tile([0.0, 0, 1], (count, 1)).astype(np.float32), deep=True)
        normals.SetName("of_file")
        of.SetNormals(normals)
    points = written_by_vtk(folder, "n.vtk", moving_points, lambda _: None, surface)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (70, -20, 10), degrees=True).as_matrix()
    write_transform(SpatialTransform(turn, None, FIXED, FIXED, MOVING), tmp_path / "turn.h5")
    apply_points(str(tmp_path / "turn.h5"), points, str(tmp_path / "n.vtk"), "fixed", "lps")
    reader = vtk.vtkPolyDataReader()
    reader.SetFileName(str(tmp_path / "n.vtk"))
    reader.Update()
    for kind in ("Point", "Cell"):
        found = getattr(reader.GetOutput(), f"Get{kind}Data")()
        assert (found.GetNormals() is not None) == (kind in which)
        if kind in which:
            values = vtk.numpy_support.vtk_to_numpy(found.GetNormals())
            np.testing.assert_allclose(values, np.tile(turn[:3, 2], (len(values), 1)), atol=1e-5)
        assert found.GetArray("of_file") is None


@pytest.mark.parametrize("ending", [".csv", ".fcsv", ".mrk.json", ".vtk"])
def test_a_point_that_an_earlier_call_did_not_deform_stays_flagged(folder, tmp_path, ending):
    inside, beyond = FIELD.to_points([[9.0, 11, 8]]), FIELD.to_points([[-40.0, 3, 3]])
    points = np.concatenate([inside, beyond])
    far = tmp_path / f"far{ending}"
    if ending == ".vtk":
        written_by_vtk(tmp_path, "far.vtk", np.concatenate([points, points]) * RAS * RAS, older_binary)
        points = np.concatenate([points, points])
    else:
        {".csv": write_csv, ".fcsv": write_fcsv, ".mrk.json": write_markups}[ending](far, points)
    once, twice = tmp_path / f"once{ending}", tmp_path / f"twice{ending}"
    space = {"space": {".csv": "lps", ".vtk": "ras"}.get(ending)}
    apply_points(str(folder / "transform.h5"), str(far), str(once), "fixed", **space)
    everywhere = np.eye(4)
    everywhere[:3, 3] = 1
    write_transform(SpatialTransform(everywhere, None, FIXED, FIXED, MOVING), tmp_path / "linear.h5")
    result = apply_points(str(tmp_path / "linear.h5"), str(once), str(twice), "fixed", **space)
    assert result["beyond_field"] == 0
    if ending == ".csv":
        assert [line[-1] for line in twice.read_text().splitlines()[1:]] == ["1", "0"]
    elif ending == ".vtk":
        surface = read_points(twice).surface
        assert [surface.GetPointData().GetArray("in_field").GetValue(n) for n in range(4)] == [1, 0, 1, 0]
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
    with pytest.raises(ValueError, match="hold 12: give the same landmarks"):
        run(folder, points, space="lps", reference=write_csv(folder / "few.csv", moving_points[:5]))


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


def test_a_surface_with_a_matrix_to_another_space_is_refused(folder, moving_points):
    image = gifti(moving_points)
    image.darrays[0].coordsys = nibabel.gifti.GiftiCoordSystem(3, 1, np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 5)
    nibabel.save(image, folder / "matrix.gii")
    with pytest.raises(ValueError, match="carries a matrix to another space"):
        run(folder, str(folder / "matrix.gii"), ".gii")


def test_points_beyond_a_field_without_an_alignment_are_said_to_stay(folder, transform, capsys):
    write_displacement(transform.displacement_field(FIELD), FIELD, folder / "displacement.nii.gz")
    points = write_csv(folder / "far.csv", np.array([[500.0, 500, 500]]))
    apply_points(str(folder / "displacement.nii.gz"), points, str(folder / "out.csv"), from_="fixed", space="lps")
    assert "1 of 1 points lie beyond the field: they stay where they are" in capsys.readouterr().out
    np.testing.assert_allclose(read_points(folder / "out.csv", "lps").points_mm, [[500, 500, 500]])


def test_a_transform_that_flattens_space_has_no_inverse(folder, moving_points, tmp_path):
    write_transform(SpatialTransform(np.diag([1.0, 1, 0, 1]), None, FIXED, FIXED, MOVING), tmp_path / "flat.tfm")
    points = write_csv(folder / "m.csv", moving_points)
    with pytest.raises(ValueError, match="has no inverse"):
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
