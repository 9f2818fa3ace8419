"""What a registered image keeps of the moving image's acquisition: its pixels are that acquisition."""

from panreg.dicom.attributes import text
from panreg.dicom.elements import ACQUISITION_TYPE_2, copy_elements, decimal, is_code
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import agent_given, echo_time_of, holder_of, inversion_time_of, sequence_of
from panreg.dicom.times import acquisition_times, share_clock
from panreg.ingest.stack import Stack
from panreg.objects.modules import LONG_STRING, burned_in_annotation, describe_body_part
from pydicom import Dataset
from pydicom.sequence import Sequence

__all__ = ["copy_acquisition"]

OPTIONAL = {"MR": ("InversionTime", "MagneticFieldStrength", "FlipAngle"), "CT": ("ConvolutionKernel",)}
# of the contrast agent, beside its name
AGENT = (
    *("ContrastBolusRoute", "ContrastBolusAdministrationRouteSequence", "ContrastBolusVolume"),
    *("ContrastBolusTotalDose", "ContrastFlowRate", "ContrastFlowDuration"),
    *("ContrastBolusIngredient", "ContrastBolusIngredientConcentration"),
)
AGENT_TIMES = ("ContrastBolusStartTime", "ContrastBolusStopTime")
CODE = ("CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
# Type 1 of the MR Image; enhanced objects have no such attributes
DEFAULTS = {"MR": {"ScanningSequence": "RM", "SequenceVariant": "NONE"}, "CT": {}}
# what enhanced MR objects call by another name
ENHANCED_TIMES = {"EchoTime": echo_time_of, "InversionTime": inversion_time_of}
LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}


def copy_acquisition(target: Dataset, moving: Stack) -> None:
    """Copy the acquisition's attributes, its times in the target's time zone, its window and its compression."""
    first, middle, modality = moving.frames[0], moving.frames[len(moving.frames) // 2], moving.modality
    for keyword in ACQUISITION_TYPE_2[modality]:
        _copy(target, first, keyword, empty=True)
    for keyword in (*OPTIONAL[modality], *DEFAULTS[modality]):
        _copy(target, first, keyword)
    describe_body_part(target, first)
    if modality == "MR" and not target.get("ScanningSequence") and all(map(is_code, sequence := sequence_of(first))):
        target.ScanningSequence = sequence
    for keyword, value in DEFAULTS[modality].items():
        if not target.get(keyword):
            setattr(target, keyword, value)
    if "IR" not in target.get("ScanningSequence", ""):  # Type 2C: scanners write it regardless, the standard forbids it
        target.pop("InversionTime", None)
    _copy_window(target, holder_of(middle, "WindowCenter"))
    _copy_agent(target, first)
    target.update(acquisition_times(first, target))
    _copy_compression(target, moving)
    target.BurnedInAnnotation = burned_in_annotation(moving)


def _copy(target: Dataset, frame: Frame, keyword: str, empty: bool = False) -> None:
    holder = holder_of(frame, keyword)
    if keyword not in holder and keyword in ENHANCED_TIMES and (value := ENHANCED_TIMES[keyword](frame)) is not None:
        setattr(target, keyword, decimal(value))
        return
    copy_elements(target, holder, [keyword], empty=empty)


def _copy_window(target: Dataset, source: Dataset) -> None:
    """Copy a window that has a centre and a width: the standard knows no half ones."""
    window = Dataset()
    copy_elements(window, source, WINDOW)
    centres, widths = (text(window, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if centres and widths and centres.count("\\") == widths.count("\\"):
        target.update(window)


def _copy_agent(target: Dataset, frame: Frame) -> None:
    """Write Contrast/Bolus where an agent was given; what enhanced images name by codes alone, by their meanings."""
    if not agent_given(frame):
        return
    codes = []
    for item in holder_of(frame, "ContrastBolusAgentSequence").get("ContrastBolusAgentSequence") or []:
        codes.append(Dataset())
        copy_elements(codes[-1], item, CODE)
    if codes:
        target.ContrastBolusAgentSequence = Sequence(codes)
    _copy(target, frame, "ContrastBolusAgent", empty=True)
    if not target.ContrastBolusAgent:
        meanings = ", ".join(str(item.CodeMeaning) for item in codes if item.get("CodeMeaning"))
        target.ContrastBolusAgent = meanings[:LONG_STRING].rstrip(" ,")
    for keyword in (*AGENT, *(AGENT_TIMES if share_clock(target, frame.header) else ())):
        _copy(target, frame, keyword)


def _copy_compression(target: Dataset, moving: Stack) -> None:
    """Say that pixels were once compressed with loss if those of any moving instance were."""
    target.LossyImageCompression = "00"
    for header in moving.instances():
        meta = getattr(header, "file_meta", Dataset())
        method = LOSSY_METHODS.get(str(meta.get("TransferSyntaxUID")))
        if method or header.get("LossyImageCompression") == "01":
            target.LossyImageCompression = "01"
            copy_elements(target, header, ["LossyImageCompressionRatio", "LossyImageCompressionMethod"])
            if method and "LossyImageCompressionMethod" not in target:
                target.LossyImageCompressionMethod = method
            return
