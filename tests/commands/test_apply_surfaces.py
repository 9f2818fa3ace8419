"""Surfaces carried from one image to the other, beside ITK; written as their source is."""

import nibabel
import numpy as np
import pytest
from bundle.commands.apply_points import apply_points
from bundle.io.itk import write_transform
from bundle.io.points import read_points
from bundle.io.points.surfaces import _vtk
from bundle.spatial import SpatialTransform
from scipy.spatial.transform import Rotation
from tests.commands.carried import FIELD, FIXED, MOVING, RAS, everywhere, run


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


def test_a_surface_with_a_matrix_to_another_space_is_refused(folder, moving_points):
    image = gifti(moving_points)
    image.darrays[0].coordsys = nibabel.gifti.GiftiCoordSystem(3, 1, np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 5)
    nibabel.save(image, folder / "matrix.gii")
    with pytest.raises(ValueError, match="carries a matrix to another space"):
        run(folder, str(folder / "matrix.gii"), ".gii")


def test_a_vertex_that_an_earlier_call_did_not_deform_stays_flagged(folder, tmp_path):
    points = FIELD.to_points([[9.0, 11, 8], [-40.0, 3, 3], [9.0, 11, 9], [-41.0, 3, 3]])
    far = written_by_vtk(tmp_path, "far.vtk", points, older_binary)
    once, twice = tmp_path / "once.vtk", tmp_path / "twice.vtk"
    apply_points(str(folder / "transform.h5"), str(far), str(once), "fixed", space="ras")
    result = apply_points(str(everywhere(tmp_path)), str(once), str(twice), "fixed", space="ras")
    assert result["beyond_field"] == 0
    surface = read_points(twice).surface
    assert [surface.GetPointData().GetArray("in_field").GetValue(n) for n in range(4)] == [1, 0, 1, 0]


@pytest.mark.parametrize("from_", ["moving", "fixed"])
@pytest.mark.parametrize("ending", [".vtk", ".gii"])
def test_a_surface_with_a_vertex_that_is_no_number_is_refused(folder, tmp_path, ending, from_):
    points = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    points[2, 1] = np.nan
    path = tmp_path / f"nan{ending}"
    if ending == ".gii":
        nibabel.save(gifti(points), path)
    else:
        rows = "\n".join(" ".join(map(str, point)) for point in points)
        path.write_text(f"# vtk DataFile Version 4.2\nmesh\nASCII\nDATASET POLYDATA\nPOINTS 4 float\n{rows}\n")
    space = {} if ending == ".gii" else {"space": "lps"}
    output = tmp_path / f"out{ending}"
    with pytest.raises(ValueError, match=rf"nan\{ending}\) hold NaN or an infinite number at vertex 2: repair"):
        apply_points(str(folder / "transform.h5"), str(path), str(output), from_, **space)
    assert not output.exists()


@pytest.mark.parametrize("side", [1, -1])
def test_the_normals_of_a_gifti_surface_are_computed_anew_and_other_vectors_stay(tmp_path, side):
    turn = Rotation.from_euler("xyz", (40, -25, 70), degrees=True).as_matrix()
    alignment = np.eye(4)
    alignment[:3, :3] = turn
    write_transform(SpatialTransform(alignment, None, FIXED, FIXED, MOVING), tmp_path / "turn.tfm")
    points = np.array([[0, 0, 0], [4, 0, 0], [0, 3, 0], [0, 0, 2]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    crosses = np.zeros((4, 3))
    for face in faces:
        a, b, c = points[face]
        crosses[face] += np.cross(b - a, c - a)
    normals = side * crosses / np.linalg.norm(crosses, axis=1, keepdims=True)
    arrays = [("POINTSET", points), ("TRIANGLE", faces), ("VECTOR", normals.astype(np.float32)), ("VECTOR", points + 1)]
    darrays = [nibabel.gifti.GiftiDataArray(data, f"NIFTI_INTENT_{name}") for name, data in arrays]
    image = nibabel.gifti.GiftiImage(darrays=darrays)
    nibabel.save(image, tmp_path / "m.gii")
    apply_points(str(tmp_path / "turn.tfm"), str(tmp_path / "m.gii"), str(tmp_path / "f.gii"), "fixed")
    vertices, kept_faces, new, other = (array.data for array in nibabel.load(tmp_path / "f.gii").darrays)
    turned = np.diag(RAS) @ turn @ np.diag(RAS)
    np.testing.assert_allclose(vertices, points @ turned.T, atol=1e-4)
    np.testing.assert_allclose(new, normals @ turned.T, atol=1e-5)
    np.testing.assert_allclose(other, points + 1)
    assert np.array_equal(kept_faces, faces)
