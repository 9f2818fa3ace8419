from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

import numpy as np
import pydicom
import pytest
from hazards import SHAPE, STORED, crash, enhanced, enhanced_slices, jpeg_2000, jpeg_lossless, setting, write
from panreg.failures import Code, Failure
from panreg.ingest import itk_decode
from panreg.ingest.decode import read_stack, rescale_of
from panreg.ingest.scan import scan
from panreg.ingest.stack import Stack
from panreg.ingest.stacks import find_stacks
from panreg.limits import Limits
from pydicom.uid import (
    ExplicitVRBigEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

RNG = np.random.default_rng(1)


def read(folder):
    (stack,) = find_stacks(scan(folder, Limits()))
    assert isinstance(stack, Stack)
    return read_stack(stack)


def code_of(folder):
    (stack,) = find_stacks(scan(folder, Limits()))
    assert isinstance(stack, Stack)
    with pytest.raises(Failure) as caught:
        read_stack(stack)
    assert str(folder) not in caught.value.message
    return caught.value.code


def rewrite(paths, change):
    """Change saved instances; ``change(ds)`` works in place."""
    for path in paths:
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path, enforce_file_format=True)


def compress(paths, syntax, folder):
    """Compress saved instances, one file each."""
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        rewrite(paths, lambda ds: jpeg_lossless(ds, folder, syntax))
    elif syntax == JPEG2000Lossless:
        rewrite(paths, jpeg_2000)
    else:
        rewrite(paths, lambda ds: ds.compress(syntax, generate_instance_uid=False))


# values
def test_a_fractional_slope_with_an_empty_first_slice_is_kept(tmp_path):
    stored = STORED.copy()
    stored[0] = 0
    write(tmp_path, stored=stored, slope=0.1887)
    values = read(tmp_path).values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, (stored * 0.1887).astype(np.float32))


@pytest.mark.hazard("intensities change")
def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    write(tmp_path, lambda ds, k: setting(RescaleSlope=str(1 + k / 8), RescaleIntercept=str(-3 * k))(ds, k))
    k = np.arange(12)[:, None, None]
    np.testing.assert_array_equal(read(tmp_path).values, STORED * (1 + k / 8) - 3 * k)


@pytest.mark.hazard("intensities change")
def test_negatives_after_a_positive_first_slice_do_not_wrap(tmp_path):
    stored = STORED - np.where(np.arange(12) == 0, 0, 700)[:, None, None]
    write(tmp_path, stored=stored)
    np.testing.assert_array_equal(read(tmp_path).values, stored)


def test_signed_12_bit_values_keep_their_sign_whatever_the_unused_bits_hold(tmp_path):
    stored = STORED - 900

    def edit(ds, k):
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = (stored[k].astype("<i2") & 0x0FFF).astype("<u2").tobytes()

    write(tmp_path, edit, stored=stored)
    np.testing.assert_array_equal(read(tmp_path).values, stored)


def test_big_endian_is_read(tmp_path):
    paths = write(tmp_path)

    def swap(ds):
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()

    for path in paths:
        ds = pydicom.dcmread(path)
        ds.decode()
        swap(ds)
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        plain = pydicom.Dataset(ds)
        plain.file_meta = ds.file_meta
        plain.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    np.testing.assert_array_equal(read(tmp_path).values, STORED)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_is_read(tmp_path, implicit):
    for path in write(tmp_path):
        ds = pydicom.dcmread(path)
        plain = pydicom.Dataset(ds)
        plain.save_as(path, implicit_vr=implicit, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read(tmp_path).values, STORED)


@pytest.mark.hazard("intensities change")
def test_monochrome1_is_flagged_and_not_inverted(tmp_path):
    write(tmp_path, setting(PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read(tmp_path).values, STORED)
    (stack,) = find_stacks(scan(tmp_path, Limits()))
    assert any("MONOCHROME1" in warning for warning in stack.warnings)


@pytest.mark.parametrize("declared", [-2000, 63536])  # in the right VR, and unsigned by mistake
def test_padding_is_marked_where_the_stored_value_matches(tmp_path, declared):
    stored = STORED - 1000
    stored[:, :3] = -2000

    def edit(ds, k):
        ds.add_new("PixelPaddingValue", "SS" if declared < 0 else "US", declared)

    write(tmp_path, edit, stored=stored, slope=2, intercept=10)
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.padding, stored == -2000)
    np.testing.assert_array_equal(volume.values, stored * 2 + 10)


def test_a_padding_range_includes_both_ends(tmp_path):
    write(tmp_path, setting(PixelPaddingValue=20, PixelPaddingRangeLimit=5))
    np.testing.assert_array_equal(read(tmp_path).padding, (STORED >= 5) & (STORED <= 20))


def test_without_padding_there_is_no_mask(tmp_path):
    write(tmp_path, setting(PixelPaddingValue=60000))
    assert read(tmp_path).padding is None


@pytest.mark.parametrize("wrong", [{"RescaleSlope": "0"}, {"RescaleIntercept": ""}, {"RescaleSlope": "1e300"}])
def test_an_unusable_rescale_is_refused(tmp_path, wrong):
    write(tmp_path, setting(**({"RescaleSlope": "1", "RescaleIntercept": "0"} | wrong)))
    assert code_of(tmp_path) is Code.E_DECODE


def test_an_mr_whose_rescale_was_emptied_has_none_and_a_ct_is_refused(tmp_path):
    emptied = {"RescaleSlope": "", "RescaleIntercept": None}
    write(tmp_path / "mr", setting(**emptied))
    np.testing.assert_array_equal(read(tmp_path / "mr").values, STORED)
    write(tmp_path / "ct", setting(**emptied), modality="CT")
    assert code_of(tmp_path / "ct") is Code.E_DECODE


# multi-frame
def test_each_frame_of_an_enhanced_image_has_its_own_rescale(tmp_path):
    enhanced(tmp_path)
    n = np.arange(12)[::-1, None, None]
    np.testing.assert_array_equal(read(tmp_path).values, STORED * (1 + n / 4) - n)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_rescale_that_stands_beside_the_frames_alone_is_that_of_all(tmp_path, modality):
    def edit(ds):
        ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = modality, "2", "-5"
        for group in ds.PerFrameFunctionalGroupsSequence:
            del group.PixelValueTransformationSequence

    enhanced(tmp_path, edit=edit)
    np.testing.assert_array_equal(read(tmp_path).values, STORED * 2.0 - 5)


def test_enhanced_images_of_one_frame_each_have_their_own_pixels_and_rescale(tmp_path):
    enhanced_slices(tmp_path)
    n = np.arange(12)[::-1, None, None]
    np.testing.assert_array_equal(read(tmp_path).values, STORED * (1 + n / 4) - n)


def test_a_legacy_converted_image_has_the_values_of_its_slices(tmp_path):
    import highdicom

    rescaled = {"RescaleSlope": "2", "RescaleIntercept": "-5", "RescaleType": "US"}
    slices = [pydicom.dcmread(path) for path in write(tmp_path / "slices", setting(**rescaled))]
    converted = highdicom.legacy.LegacyConvertedEnhancedMRImage(slices, "1.2.3", 4, "1.2.4", 1)
    (tmp_path / "multi").mkdir()
    converted.save_as(tmp_path / "multi" / "image.dcm")
    np.testing.assert_array_equal(read(tmp_path / "multi").values, STORED * 2.0 - 5)


def test_a_compressed_enhanced_image_is_decoded_frame_by_frame(tmp_path):
    compress([enhanced(tmp_path)], RLELossless, tmp_path)
    n = np.arange(12)[::-1, None, None]
    np.testing.assert_array_equal(read(tmp_path).values, STORED * (1 + n / 4) - n)


# the decoders, in turn
SYNTAXES = {
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "JPEG Lossless": JPEGLossless,
    "JPEG Lossless SV1": JPEGLosslessSV1,
}


@pytest.fixture(scope="module")
def processes():
    """Processes that decode by ITK, whose start takes seconds; the last is the one to go on with."""
    with ExitStack() as pools:
        yield pools, []


@pytest.fixture
def one_itk(processes, monkeypatch):
    """Let the tests that want ITK's pixels share a process, until it ends."""
    pools, started = processes
    if not started or started[-1]._broken:
        started.append(pools.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn"))))
    monkeypatch.setattr(itk_decode.ItkDecoder, "_pool", started[-1])


@pytest.mark.usefixtures("one_itk")
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_compressed_pixels_are_exact_under_monochrome1_and_a_fractional_slope(tmp_path, syntax, signed):
    stored = np.tile(STORED[:3], (1, 2, 2)) - 700 * signed

    def edit(ds, k):
        ds.PhotometricInterpretation, ds.BitsStored, ds.HighBit = "MONOCHROME1", 12, 11

    paths = write(tmp_path / "series", edit, stored=stored, slope=0.25, intercept=-3)
    compress(paths, syntax, tmp_path)
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read(tmp_path / "series").values, stored * 0.25 - 3)


@pytest.mark.usefixtures("one_itk")
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_truncated_compressed_pixels_are_refused(tmp_path, syntax):
    paths = write(tmp_path / "series", stored=np.tile(STORED[:3], (1, 2, 2)))
    compress(paths, syntax, tmp_path)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: -len(whole) // 6])
    assert code_of(tmp_path / "series") is Code.E_DECODE


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless])
def test_a_stream_larger_than_its_header_tells_is_refused(tmp_path, syntax):
    paths = write(tmp_path / "series", stored=STORED[:3])
    compress(paths, syntax, tmp_path)
    content = bytearray(paths[1].read_bytes())
    at = content.index(b"\xff\xc3" if syntax == JPEGLossless else b"\xff\xf7") + 5
    content[at : at + 4] = b"\xff\xff\xff\xff"
    paths[1].write_bytes(content)
    assert code_of(tmp_path / "series") is Code.E_DECODE


def test_a_crash_of_itk_is_a_refusal(tmp_path, monkeypatch):
    paths = write(tmp_path / "series", stored=STORED[:3])
    compress(paths, JPEGLosslessSV1, tmp_path)
    monkeypatch.setattr(itk_decode, "_read", crash)  # in the child
    assert code_of(tmp_path / "series") is Code.E_DECODE


@pytest.mark.hazard("damaged pixels are used")
def test_truncated_native_pixels_are_refused(tmp_path):
    paths = write(tmp_path)
    paths[4].write_bytes(paths[4].read_bytes()[:-100])
    assert code_of(tmp_path) is Code.E_DECODE


def test_missing_pixels_are_refused(tmp_path):
    rewrite(write(tmp_path)[-1:], lambda ds: ds.__delitem__("PixelData"))
    assert code_of(tmp_path) is Code.E_DECODE


def test_an_unsupported_syntax_is_refused_by_name(tmp_path):
    def relabel(ds):
        ds.PixelData = pydicom.encaps.encapsulate([ds.PixelData])
        ds.file_meta.TransferSyntaxUID = HTJ2KLossless

    rewrite(write(tmp_path), relabel)
    (stack,) = find_stacks(scan(tmp_path, Limits()))
    with pytest.raises(Failure, match="High-Throughput JPEG 2000") as caught:
        read_stack(stack)
    assert caught.value.code is Code.E_DECODE


def as_jpeg_lossless(path, folder, frames=12, tables=(True, False), syntax=JPEGLosslessSV1):
    """Compress a multi-frame instance frame by frame.

    ``tables``: with a basic and an extended offset table; without any, a frame is two fragments.
    """
    streams, ds = [], pydicom.dcmread(path)
    for n in range(frames):
        one = pydicom.dcmread(path)
        one.PixelData = ds.pixel_array[n].tobytes()
        jpeg_lossless(one, folder, syntax)
        streams.append(pydicom.encaps.get_frame(one.PixelData, 0))
    basic, extended = tables
    if extended:
        found = pydicom.encaps.encapsulate_extended(streams)
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = found
    else:
        ds.PixelData = pydicom.encaps.encapsulate(streams, fragments_per_frame=1 if basic else 2, has_bot=basic)
    ds["PixelData"].VR, ds.file_meta.TransferSyntaxUID = "OB", syntax
    ds.save_as(path, enforce_file_format=True)


@pytest.mark.usefixtures("one_itk")
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("tables", [(True, False), (False, True), (False, False)], ids=["basic", "extended", "none"])
def test_an_enhanced_image_that_only_itk_knows_is_decoded_frame_by_frame(tmp_path, tables, syntax):
    as_jpeg_lossless(enhanced(tmp_path), tmp_path, tables=tables, syntax=syntax)
    (tmp_path / "jpeg_lossless.dcm").unlink()
    n = np.arange(12)[::-1, None, None]
    np.testing.assert_array_equal(read(tmp_path).values, STORED * (1 + n / 4) - n)


@pytest.mark.usefixtures("one_itk")
def test_an_enhanced_image_with_a_frame_too_few_is_refused(tmp_path):
    as_jpeg_lossless(enhanced(tmp_path), tmp_path, frames=11)
    (tmp_path / "jpeg_lossless.dcm").unlink()
    assert code_of(tmp_path) is Code.E_DECODE


def test_a_stream_of_an_enhanced_image_that_is_none_is_refused(tmp_path):
    def relabel(ds):
        ds.PixelData = pydicom.encaps.encapsulate([ds.PixelData[:960]] * 12)
        ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1

    rewrite([enhanced(tmp_path)], relabel)
    assert code_of(tmp_path) is Code.E_DECODE


def test_left_justified_bits_are_refused(tmp_path):
    write(tmp_path, setting(BitsStored=12, HighBit=15))
    assert code_of(tmp_path) is Code.E_DECODE


def test_several_frames_in_a_single_frame_class_are_refused(tmp_path):
    write(tmp_path, lambda ds, k: setting(NumberOfFrames="2", PixelData=2 * ds.PixelData)(ds, k))
    assert code_of(tmp_path) is Code.E_DECODE


def test_pixels_of_another_shape_than_the_header_are_refused(tmp_path):
    paths = write(tmp_path)
    (stack,) = find_stacks(scan(tmp_path, Limits()))
    rewrite(paths[3:4], lambda ds: setting(Rows=10, PixelData=ds.PixelData[:480])(ds, 0))
    with pytest.raises(Failure) as caught:
        read_stack(stack)
    assert caught.value.code is Code.E_DECODE


# malformed bytes
@pytest.mark.slow
@pytest.mark.hazard("damaged pixels are used")
@pytest.mark.property(16)
def test_a_thousand_flipped_bytes_end_in_a_failure_or_a_volume(tmp_path):
    """Most flips hit pixels or text; a wrong byte must never raise anything but a Failure."""
    stored = STORED[:3, :6, :6]
    (tmp_path / "frames").mkdir()
    write(tmp_path / "native", stored=stored)
    compress(write(tmp_path / "rle", stored=stored), RLELossless, tmp_path)
    enhanced(tmp_path / "frames", frames=4)
    outcomes = set()
    for kind, count in {"native": 200, "rle": 200, "frames": 600}.items():
        originals = [(path, path.read_bytes()) for path in (tmp_path / kind).rglob("*.dcm")]
        for _ in range(count):
            path, content = originals[RNG.integers(len(originals))]
            damaged = bytearray(content)
            damaged[RNG.integers(128, min(len(content), 4000))] ^= RNG.integers(1, 256)  # most where the header lies
            path.write_bytes(damaged)
            outcomes.add(outcome(tmp_path / kind))
            path.write_bytes(content)
    assert {"volume", "E_DECODE", "E_NO_GEOMETRY", "E_TOO_FEW"} <= outcomes


def outcome(folder):
    try:
        stacks = find_stacks(scan(folder, Limits()))
        for stack in stacks:
            if isinstance(stack, Stack):
                volume = read_stack(stack)
                assert volume.values.shape == stack.shape
                assert np.isfinite(volume.values).all()
        return "volume" if any(isinstance(stack, Stack) for stack in stacks) else stacks[0].refusal.code.name
    except Failure as failure:
        return failure.code.name
    except IndexError:
        assert not stacks  # nothing left: the caller's E_NO_INPUT
        return "nothing"


# what the writers ask
def test_the_rescale_of_a_frame_is_told(tmp_path):
    write(tmp_path / "plain", name="a")
    write(tmp_path / "scaled", name="b", slope=0.5, intercept=-7)
    plain, scaled = (find_stacks(scan(tmp_path / name, Limits()))[0].frames[3] for name in ("plain", "scaled"))
    assert rescale_of(plain) == (1, 0)
    assert rescale_of(scaled) == (0.5, -7)


def test_four_hundred_slices_are_scanned_and_read(tmp_path):
    stored = np.broadcast_to(STORED[:1, :, :], (400, *SHAPE[1:]))
    write(tmp_path, stored=stored)
    np.testing.assert_array_equal(read(tmp_path).values, stored)
