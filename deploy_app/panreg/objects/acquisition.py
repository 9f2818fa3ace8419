"""What a registered image keeps of the moving image's acquisition: its pixels are that acquisition."""

from datetime import datetime

from panreg.dicom.attributes import text
from panreg.dicom.elements import ACQUISITION_TYPE_2, copy_elements, decimal, is_code
from panreg.dicom.frame import Frame
from panreg.dicom.functional_groups import agent_given, echo_time_of, holder_of, inversion_time_of, sequence_of
from panreg.ingest.stack import Stack
from panreg.objects.modules import LONG_STRING, describe_body_part, timezone_of
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import DA, DT, TM

__all__ = ["copy_acquisition"]

TIMES = ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime")
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
    _copy_times(target, first)
    _copy_compression(target, moving)
    burned_in = {str(header.get("BurnedInAnnotation", "NO")) for header in moving.instances()}
    target.BurnedInAnnotation = "YES" if "YES" in burned_in else "NO"


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
    for keyword in (*AGENT, *(AGENT_TIMES if _share_clock(target, frame) else ())):
        _copy(target, frame, keyword)


def _share_clock(target: Dataset, frame: Frame) -> bool:
    """Tell whether the frame's times mean the same in the target, as far as their time zones tell."""
    theirs, ours = timezone_of(frame.header), timezone_of(target)
    return theirs is None or ours is None or theirs == ours


def _copy_times(target: Dataset, frame: Frame) -> None:
    """Copy the acquisition's times; one that the other time zone can't express (no date to a time) is left out."""
    source = Dataset()
    for keyword in TIMES:
        copy_elements(source, holder_of(frame, keyword), [keyword])
    if _share_clock(target, frame):
        copy_elements(target, source, TIMES)
        return
    theirs, ours = timezone_of(frame.header), timezone_of(target)
    if source.get("AcquisitionDate") and source.get("AcquisitionTime"):
        date, time = DA(source.AcquisitionDate), TM(source.AcquisitionTime)
        moment = datetime.combine(date, time, theirs).astimezone(ours)
        target.AcquisitionDate, target.AcquisitionTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    if source.get("AcquisitionDateTime"):
        moment = DT(source.AcquisitionDateTime)
        moment = moment if moment.tzinfo else datetime.combine(moment.date(), moment.time(), theirs)
        target.AcquisitionDateTime = moment.astimezone(ours).strftime("%Y%m%d%H%M%S.%f%z")


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
