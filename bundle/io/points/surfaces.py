"""Surfaces, whose vertices are points: GIFTI, and what VTK reads (``.vtk``, ``.vtp``, ``.stl``, ``.ply``)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
from bundle.io.files import utf8
from bundle.io.points.complete import is_complete
from bundle.io.points.pointfile import FLAG, PointFile, Points, Reached
from bundle.io.points.vtk_form import keep_form, keep_title
from nibabel.nifti1 import xform_codes

__all__ = ["GiftiSurface", "VtkSurface"]

POINTSET = "NIFTI_INTENT_POINTSET"
FACES, NORMALS = "NIFTI_INTENT_TRIANGLE", "NIFTI_INTENT_VECTOR"
MISSING = "The surface ({}) needs the vtk package: pip install 'pan-registration[surfaces]'."
CUT_OFF = "The surface ({}) is cut off or damaged: copy or make it again."
SPACE = "SPACE"  # Slicer's name of the field data that say it
HEADER_BYTES = 1024


class GiftiSurface(PointFile):
    """A surface of the neuroimaging tools: RAS, by its own standard."""

    def __init__(self, path: Path, space: str | None) -> None:
        super().__init__(path, "ras", space)
        try:
            self.image = nibabel.load(path)
            (self.vertices,) = self.image.get_arrays_from_intent(POINTSET)
        except Exception as error:  # XML's and nibabel's own kinds
            raise ValueError(f"The surface ({path}) cannot be read as GIFTI with one set of vertices.") from error
        if not self._is_of_scanner():
            self._refuse_other_space()

    def _is_of_scanner(self) -> bool:
        """Tell whether the file says that its vertices are in the scanner's space, whatever matrix leads on from it.

        ``mris_convert --to-scanner`` (FreeSurfer since December 2022) adds one to its own space, and keeps its volume.
        """
        system = self.vertices.coordsys
        return system is not None and xform_codes.code[system.dataspace] == xform_codes.code["scanner"]

    def _refuse_other_space(self) -> None:
        system = self.vertices.coordsys
        if system is not None and not np.allclose(system.xform, np.eye(4), atol=1e-6):
            raise ValueError(
                f"The surface ({self.path}) carries a matrix to another space (its coordinate system transform): apply "
                "it first, so that its vertices are in the scanner's space."
            )
        about = dict(self.vertices.meta)
        if any(float(about.get(f"VolGeomC_{axis}", 0)) for axis in "RAS"):
            raise ValueError(
                f"The surface ({self.path}) counts from the middle of FreeSurfer's volume, not from the scanner's: "
                "convert it by mris_convert --to-scanner."
            )

    @property
    def positions(self) -> Points:
        """The vertices."""
        return np.asarray(self.vertices.data, dtype=np.float64)

    def write(self, positions: Points, reached: Reached, path: Path) -> None:
        """Write the surface, its normals computed anew; the format has no place for a flag."""
        changed = [(self.vertices, positions.astype(np.float32))]
        changed += [
            (array, self._normals(array.data, positions)) for array in self.image.darrays if self._is_normals(array)
        ]
        kept = [array.data for array, _ in changed]
        for array, data in changed:
            array.data = data
        nibabel.save(self.image, path)
        for (array, _), data in zip(changed, kept):
            array.data = data

    def _is_normals(self, array: Any) -> bool:
        """Tell whether an array holds normals, by its intent and its vectors of length 1, one for each vertex."""
        if array.intent != nibabel.nifti1.intent_codes[NORMALS] or np.shape(array.data) != self.positions.shape:
            return False
        lengths = np.linalg.norm(array.data, axis=1)
        return bool(np.allclose(lengths[lengths > 0], 1, atol=1e-3) and lengths.any())

    def _normals(self, old: Any, positions: Points) -> Any:
        """Compute the normals of the vertices anew, (n, 3), pointing to the side of the faces where the old ones do."""
        before, after = (self._by_faces(of) for of in (self.positions, positions))
        side = np.where((before * old).sum() < 0, -1, 1)
        return np.where(after.any(1, keepdims=True), side * after, old).astype(old.dtype)

    def _by_faces(self, positions: Points) -> Points:
        """Average the normals of the faces around each vertex, weighted by their areas; 0 where there is none."""
        normals = np.zeros_like(positions)
        for faces in (array.data for array in self.image.get_arrays_from_intent(FACES)):
            a, b, c = positions[faces].transpose(1, 0, 2)
            for corner in faces.T:
                np.add.at(normals, corner, np.cross(b - a, c - a))
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        return normals / np.where(lengths > 0, lengths, 1)


class VtkSurface(PointFile):
    """A surface that VTK reads; Slicer notes in it how it counts."""

    def __init__(self, path: Path, space: str | None) -> None:
        self.vtk = _vtk(path)
        if not is_complete(path):
            raise ValueError(CUT_OFF.format(path))
        self.reader = self._module(path)[0]()
        self.reader.SetFileName(utf8(path))
        with self._kept_messages() as messages:
            self.reader.Update()
        self.surface = self.reader.GetOutput()
        if "ERR" in messages.GetOutput().upper() and self.surface.GetNumberOfPoints():
            raise ValueError(CUT_OFF.format(path))
        if not self.surface.GetNumberOfPoints():
            raise ValueError(f"The surface ({path}) holds no vertices that VTK can read.")
        super().__init__(path, self._said(path), space)

    @contextmanager
    def _kept_messages(self) -> Iterator[Any]:
        """Keep VTK's messages, which it prints otherwise: what matters of them is said in one sentence."""
        shown, kept = self.vtk.vtkOutputWindow.GetInstance(), self.vtk.vtkStringOutputWindow()
        verbosity = self.vtk.vtkLogger.GetCurrentVerbosityCutoff()
        self.vtk.vtkOutputWindow.SetInstance(kept)
        self.vtk.vtkLogger.SetStderrVerbosity(self.vtk.vtkLogger.VERBOSITY_OFF)
        try:
            yield kept
        finally:
            self.vtk.vtkOutputWindow.SetInstance(shown)
            self.vtk.vtkLogger.SetStderrVerbosity(verbosity)

    def _module(self, path: Path) -> tuple[Any, Any]:
        """VTK's reader and writer of a format."""
        v = self.vtk
        return {
            ".vtk": (v.vtkPolyDataReader, v.vtkPolyDataWriter),
            ".vtp": (v.vtkXMLPolyDataReader, v.vtkXMLPolyDataWriter),
            ".stl": (v.vtkSTLReader, v.vtkSTLWriter),
            ".ply": (v.vtkPLYReader, v.vtkPLYWriter),
        }[path.suffix.lower()]

    def _said(self, path: Path) -> str | None:
        """What Slicer notes, in the first lines or among the field data."""
        noted = self.surface.GetFieldData().GetAbstractArray(SPACE)
        if noted is not None and noted.GetNumberOfValues():
            return str(noted.GetVariantValue(0).ToString()).lower()
        found = re.search(rb"SPACE=(LPS|RAS)", path.read_bytes()[:HEADER_BYTES])
        return found[1].decode().lower() if found else None

    @property
    def positions(self) -> Points:
        """The vertices."""
        return np.asarray(self.vtk.numpy_support.vtk_to_numpy(self.surface.GetPoints().GetData()), dtype=np.float64)

    def write(self, positions: Points, reached: Reached, path: Path) -> None:
        """Write the surface; an array of the vertices is 0 where no field reached, if the format has arrays.

        What an earlier call left at 0 stays so. Normals, where there are some, are computed anew.
        """
        to_vtk, surface, points = self.vtk.numpy_support.numpy_to_vtk, self.vtk.vtkPolyData(), self.vtk.vtkPoints()
        surface.DeepCopy(self.surface)
        points.SetData(to_vtk(np.ascontiguousarray(positions, dtype=np.float32), deep=True))
        surface.SetPoints(points)
        flag = to_vtk((reached & self._reached_before()).astype(np.uint8), deep=True)
        flag.SetName(FLAG)
        surface.GetPointData().AddArray(flag)
        writer = self._module(path)[1]()
        writer.SetInputData(self._with_normals(surface))
        writer.SetFileName(utf8(path))
        keep_form(self.reader, writer, writer.GetInput(), self.path)
        self._note(writer)
        if not writer.Write():
            raise OSError(f"The surface ({path}) could not be written by VTK.")

    def _reached_before(self) -> Reached:
        """Which vertices the fields of earlier calls reached, (n,)."""
        flag = self.surface.GetPointData().GetArray(FLAG)
        if flag is None:
            return np.ones(self.surface.GetNumberOfPoints(), dtype=bool)
        return np.asarray(self.vtk.numpy_support.vtk_to_numpy(flag)) != 0

    def _with_normals(self, surface: Any) -> Any:
        """Compute the normals of the vertices and of the faces anew, where there are some."""
        old = [(of, of.GetNormals().GetName()) for of in _data_of(surface) if of.GetNormals() is not None]
        if not old:
            return surface
        of_vertices, of_faces = (of.GetNormals() is not None for of in _data_of(surface))
        for of, name in old:
            of.SetActiveNormals(None)  # which VTK would keep
            of.RemoveArray(name)
        normals = self.vtk.vtkPolyDataNormals()
        normals.SetInputData(surface)
        normals.SplittingOff()
        normals.ConsistencyOff()
        normals.SetComputePointNormals(of_vertices)
        normals.SetComputeCellNormals(of_faces)
        normals.Update()
        return normals.GetOutput()

    def _note(self, writer: Any) -> None:
        """Note in the file how it counts, as Slicer does."""
        if not keep_title(self.reader, writer, f"{SPACE}={self.space.upper()}"):
            named = self.vtk.vtkStringArray()
            named.SetName(SPACE)
            named.InsertNextValue(self.space.upper())
            writer.GetInput().GetFieldData().AddArray(named)


def _data_of(surface: Any) -> tuple[Any, Any]:
    """The arrays of the vertices, and those of the faces."""
    return surface.GetPointData(), surface.GetCellData()


def _vtk(path: Path) -> Any:
    """The parts of VTK that this takes, which are not needed for anything else."""
    try:
        from vtkmodules import (
            vtkCommonCore,
            vtkCommonDataModel,
            vtkFiltersCore,
            vtkIOGeometry,
            vtkIOLegacy,
            vtkIOPLY,
            vtkIOXML,
        )
        from vtkmodules.util import numpy_support
    except ImportError as error:
        raise ValueError(MISSING.format(path)) from error
    modules = (vtkCommonCore, vtkCommonDataModel, vtkFiltersCore, vtkIOGeometry, vtkIOLegacy, vtkIOPLY, vtkIOXML)
    names = {name: value for module in modules for name, value in vars(module).items() if name.startswith("vtk")}
    return SimpleNamespace(numpy_support=numpy_support, **names)
