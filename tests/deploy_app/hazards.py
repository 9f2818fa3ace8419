"""The series that readers stumble over, each from one small oblique, anisotropic volume."""

import os

import numpy as np
from pydicom.uid import JPEGLosslessSV1
from synthetic import affine_of, rotation, write_series

SHAPE = (12, 20, 24)  # slices, rows, columns
AFFINE = affine_of(rotation("x", 12) @ rotation("z", -7), (2, 3, 4), (-20, -28, -22))
STORED = np.random.default_rng(0).integers(0, 1500, SHAPE)


def write(folder, edit=None, stored=STORED, affine=AFFINE, **options):
    """Write the volume as a series; its paths in slice order."""
    return write_series(folder, stored, affine, name=options.pop("name", "series"), edit=edit, **options)


def setting(**values):
    """An edit that sets attributes in every slice."""

    def edit(ds, k):
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return edit


def crash(path):
    """End this process as a segmentation fault would."""
    os._exit(139)


def jpeg_lossless(ds, folder, syntax=JPEGLosslessSV1):
    """Compress an instance in place as JPEG Lossless, by ITK's writer: no other writer of it is installed here."""
    import itk
    import pydicom

    stored = np.frombuffer(ds.PixelData, "<i2" if ds.PixelRepresentation else "<u2").reshape(ds.Rows, ds.Columns)
    image, path = itk.image_from_array(stored.copy()), str(folder / "jpeg_lossless.dcm")
    io = itk.GDCMImageIO.New()
    io.SetCompressor("JPEG")
    writer = itk.ImageFileWriter[type(image)].New(Input=image, FileName=path, ImageIO=io, UseCompression=True)
    writer.Update()
    compressed = pydicom.dcmread(path)
    assert compressed.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    ds["PixelData"] = compressed["PixelData"]
    ds.file_meta.TransferSyntaxUID = syntax  # selection value 1 is one of those that process 14 (.57) may use


def jpeg_2000(ds):
    """Compress an instance in place as JPEG 2000 without loss, by OpenJPEG itself."""
    import openjpeg
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    stored = np.frombuffer(ds.PixelData, "<i2" if ds.PixelRepresentation else "<u2").reshape(ds.Rows, ds.Columns)
    ds.PixelData = encapsulate([openjpeg.encode(stored, bits_stored=ds.BitsStored, photometric_interpretation=2)])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless


def enhanced(folder, frames=SHAPE[0], edit=None):
    """Write the volume as one Enhanced MR instance with its frames in reverse and its own slope in each; its path."""
    from pydicom import Dataset, dcmread

    source = [dcmread(path) for path in write(folder / "source")][:frames][::-1]
    ds = source[0]
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    ds.NumberOfFrames, ds.PixelData = len(source), b"".join(s.PixelData for s in source)
    ds.SharedFunctionalGroupsSequence = [Dataset()]
    shared = ds.SharedFunctionalGroupsSequence[0]
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = source[0].PixelSpacing, source[0].SliceThickness
    orientation.ImageOrientationPatient = source[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    groups = []
    for n, s in enumerate(source):
        position, transformation, group = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = s.ImagePositionPatient
        transformation.RescaleSlope, transformation.RescaleIntercept = str(1 + n / 4), str(-n)
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [transformation]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    if edit is not None:
        edit(ds)
    path = folder / "enhanced.dcm"
    ds.save_as(path, enforce_file_format=True)
    for file in (folder / "source").iterdir():
        file.unlink()
    return path


def enhanced_slices(folder, edit=None):
    """Write the volume as Enhanced MR instances of one frame each, else as ``enhanced`` does; their paths."""
    from copy import deepcopy

    from pydicom import dcmread
    from pydicom.uid import generate_uid

    path = enhanced(folder)
    whole, paths = dcmread(path), []
    path.unlink()
    pixels, groups = whole.PixelData, whole.PerFrameFunctionalGroupsSequence
    size = len(pixels) // len(groups)
    for n, group in enumerate(groups):
        ds = deepcopy(whole)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["slice", str(n)])
        ds.NumberOfFrames, ds.InstanceNumber = 1, n + 1
        ds.PerFrameFunctionalGroupsSequence = [group]
        ds.PixelData = pixels[n * size : (n + 1) * size]
        if edit is not None:
            edit(ds, n)
        paths.append(folder / f"enhanced_{n:02d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths
