"""Stacks of headers alone, for what reads no pixels."""

from pathlib import Path

from panreg.dicom.frame import Frame
from panreg.ingest.stack import RefusedStack, Stack
from synthetic import FIXED_AFFINE, slice_header, uid

ROOT = Path("input")


def stack(
    name,
    study="one",
    date="20240110",
    number=3,
    slices=4,
    folder="",
    modality="MR",
    patient="PAT-1",
    series=None,
    refusal=None,
    **attributes,
):
    """A stack of headers that lie in no file."""
    frames = []
    for k in range(slices):
        header = slice_header(
            name, modality, FIXED_AFFINE, k, (slices, 8, 9), patient, date, number, "T1", study, "frame"
        )
        header.SeriesInstanceUID = uid("series", series or name)
        for keyword, value in attributes.items():
            setattr(header, keyword, value)
        frames.append(Frame(ROOT / folder / f"{name}_{k}.dcm", header))
    return RefusedStack(tuple(frames), refusal) if refusal else Stack(tuple(frames), FIXED_AFFINE)
