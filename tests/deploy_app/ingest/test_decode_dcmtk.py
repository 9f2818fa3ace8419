import subprocess

import numpy as np
import pydicom
import pytest
from hazards import STORED, write
from panreg.ingest.decode import read_stack
from panreg.ingest.scan import scan
from panreg.ingest.stacks import find_stacks
from panreg.limits import Limits
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

pytestmark = pytest.mark.debian


@pytest.mark.parametrize(("option", "syntax"), [("+el", JPEGLossless), ("+e1", JPEGLosslessSV1)])
@pytest.mark.parametrize("shift", [0, 700], ids=["unsigned", "signed"])
def test_jpeg_lossless_of_dcmtk_is_exact(tmp_path, option, syntax, shift):
    def edit(ds, k):
        ds.PhotometricInterpretation, ds.BitsStored, ds.HighBit = "MONOCHROME1", 12, 11

    paths = write(tmp_path / "plain", edit, stored=STORED[:3] - shift, slope=0.25, intercept=-3)
    (tmp_path / "compressed").mkdir()
    for path in paths:
        target = tmp_path / "compressed" / path.name
        subprocess.run(["dcmcjpeg", option, path, target], check=True)
        assert pydicom.dcmread(target, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax
    (stack,) = find_stacks(scan(tmp_path / "compressed", Limits()))
    np.testing.assert_array_equal(read_stack(stack).values, (STORED[:3] - shift) * 0.25 - 3)
