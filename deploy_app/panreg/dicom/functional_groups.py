"""Where an attribute of a frame lies: in the header of its instance, or in a functional group of a multi-frame one.

What enhanced objects call by another name is read here, too, as classic images have it.
"""

from collections.abc import Iterator

from panreg.dicom.attributes import macro, pydicom_silenced, text
from panreg.dicom.frame import Frame
from pydicom import Dataset

__all__ = [
    "agent_given",
    "body_part_of",
    "echo_time_of",
    "holder_of",
    "inversion_time_of",
    "laterality_of",
    "rescale_type_of",
    "sequence_of",
    "text_of",
]

BODY_PARTS = {  # anatomic regions that Body Part Examined has a term for (PS3.16, annex L): SNOMED CT, and as it was
    **{"69536005": "HEAD", "T-D1100": "HEAD", "12738006": "BRAIN", "T-A0100": "BRAIN"},
    **{"89546000": "SKULL", "T-11100": "SKULL", "45048000": "NECK", "T-D1600": "NECK"},
    **{"774007": "HEADNECK", "T-D1000": "HEADNECK", "51185008": "CHEST", "816094009": "CHEST", "T-D3000": "CHEST"},
    **{"818981001": "ABDOMEN", "113345001": "ABDOMEN", "T-D4000": "ABDOMEN", "818982008": "ABDOMENPELVIS"},
    **{"816092008": "PELVIS", "12921003": "PELVIS", "T-D6000": "PELVIS"},
    **{"80891009": "HEART", "T-32000": "HEART", "38266002": "WHOLEBODY", "T-D0010": "WHOLEBODY"},
}
ENHANCED_NAMES = {"EchoTime": ("EffectiveEchoTime",), "InversionTime": ("InversionTimes",)}
PULSES = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}  # Echo Pulse Sequence -> Scanning Sequence


@pydicom_silenced()
def holder_of(frame: Frame, keyword: str) -> Dataset:
    """Find the data set that holds a frame's attribute: a functional group, per frame before shared, or the header.

    The attributes that a converter of single-frame images could not place lie in functional groups, too.

    Returns:
        The data set; the header if none has the attribute, or its groups are damaged.
    """
    if frame.number is None or keyword in frame.header:
        return frame.header
    try:
        return next((item for item in _items(frame, frame.number) if keyword in item), frame.header)
    except Exception:  # pydicom raises whatever its converters meet in damaged bytes
        return frame.header


@pydicom_silenced()
def text_of(frame: Frame, keyword: str) -> str | None:
    """Read a frame's attribute by its classic name, from wherever it lies and whatever enhanced images call it."""
    names = (keyword, *ENHANCED_NAMES.get(keyword, ()))
    return next((value for name in names if (value := text(holder_of(frame, name), name))), None)


def _items(frame: Frame, number: int) -> Iterator[Dataset]:
    per_frame = frame.header.get("PerFrameFunctionalGroupsSequence") or []
    shared = frame.header.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[number - 1 : number], *shared[:1]):
        for element in group:
            if element.VR == "SQ":
                yield from element.value[:1]


@pydicom_silenced()
def body_part_of(frame: Frame) -> str:
    """Read Body Part Examined; of an enhanced image from the code of its anatomic region. Empty where it is unknown."""
    part = text(holder_of(frame, "BodyPartExamined"), "BodyPartExamined")
    if part:
        return part.upper()
    regions = holder_of(frame, "AnatomicRegionSequence").get("AnatomicRegionSequence") or []
    return next((BODY_PARTS.get(text(region, "CodeValue") or "", "") for region in regions), "")


@pydicom_silenced()
def laterality_of(frame: Frame) -> str:
    """Read the side of a paired body part, L or R; empty where there is none."""
    for keyword in ("Laterality", "ImageLaterality", "FrameLaterality"):
        side = (text(holder_of(frame, keyword), keyword) or "").upper()
        if side in ("L", "R"):
            return side
    return ""


@pydicom_silenced()
def echo_time_of(frame: Frame) -> float | None:
    """Read Echo Time, or Effective Echo Time, ms."""
    return _first(frame, "EchoTime")


@pydicom_silenced()
def inversion_time_of(frame: Frame) -> float | None:
    """Read Inversion Time, or the first of Inversion Times, ms."""
    return _first(frame, "InversionTime")


def _first(frame: Frame, keyword: str) -> float | None:
    for name in (keyword, *ENHANCED_NAMES[keyword]):
        value = text(holder_of(frame, name), name)
        try:
            return float((value or "").split("\\")[0])
        except ValueError:
            continue
    return None


@pydicom_silenced()
def sequence_of(frame: Frame) -> list[str]:
    """Read Scanning Sequence; of an enhanced image from its echoes and its inversion pulse. Empty if it is unknown."""
    classic = text(holder_of(frame, "ScanningSequence"), "ScanningSequence")
    if classic:
        return classic.upper().split("\\")
    kinds = PULSES.get(text(holder_of(frame, "EchoPulseSequence"), "EchoPulseSequence") or "", [])
    inverted = text(holder_of(frame, "InversionRecovery"), "InversionRecovery") == "YES"
    return [*kinds, "IR"] if inverted else list(kinds)


@pydicom_silenced()
def rescale_type_of(frame: Frame) -> str:
    """Read Rescale Type, what the values are (HU, MGML, Z_EFF …); empty where the header does not say."""
    return text(holder_of(frame, "RescaleType"), "RescaleType") or ""


@pydicom_silenced()
def agent_given(frame: Frame) -> bool:
    """Tell whether a contrast agent is named, and not said to have been left out of the frame."""
    header = frame.header
    if not header.get("ContrastBolusAgentSequence"):
        return bool(text(holder_of(frame, "ContrastBolusAgent"), "ContrastBolusAgent"))
    usage = macro(frame, "ContrastBolusUsageSequence") if frame.number is not None else Dataset()
    return text(usage, "ContrastBolusAgentAdministered") != "NO"
