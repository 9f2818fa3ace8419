"""The shapes of real headers: what scanners, archives and de-identification leave in and out."""

from pydicom import Dataset


def without_body_part(ds, k):
    del ds.BodyPartExamined


def empty_laterality(ds, k):
    ds.Laterality = ""


def empty_laterality_without_body_part(ds, k):
    without_body_part(ds, k)
    ds.Laterality = ""


def paired_part_without_a_side(ds, k):
    ds.BodyPartExamined = "KNEE"


def paired_part_with_a_side(ds, k):
    ds.BodyPartExamined, ds.Laterality = "KNEE", "L"


def unknown_part(ds, k):
    ds.BodyPartExamined = "HIRN"


def a_side_of_the_head(ds, k):
    ds.Laterality = "R"


def frame_of_reference_text(ds, k):
    ds.PositionReferenceIndicator = "NA"


def without_frame_of_reference_text(ds, k):
    del ds.PositionReferenceIndicator


def without_dates(ds, k):
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{name}Date", "")
        setattr(ds, f"{name}Time", "")


SHAPES = (
    *(without_body_part, empty_laterality, empty_laterality_without_body_part, paired_part_without_a_side),
    *(paired_part_with_a_side, unknown_part, a_side_of_the_head, frame_of_reference_text),
    *(without_frame_of_reference_text, without_dates),
)


def as_enhanced_mprage(ds):
    """Give an enhanced MR the functional groups of an MPRAGE, in place of what classic images have."""
    for keyword in ("EchoTime", "RepetitionTime", "InversionTime", "ScanningSequence", "SequenceVariant", "FlipAngle"):
        delattr(ds, keyword)
    ds.EchoPulseSequence = "GRADIENT"
    shared = ds.SharedFunctionalGroupsSequence[0]
    timing, modifier, anatomy, region = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = 2300, 8, 1
    modifier.InversionRecovery, modifier.InversionTimes = "YES", [900.0]
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "69536005", "SCT", "Head"
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [region]
    shared.MRTimingAndRelatedParametersSequence, shared.MRModifierSequence = [timing], [modifier]
    shared.FrameAnatomySequence = [anatomy]
    for group in ds.PerFrameFunctionalGroupsSequence:
        echo = Dataset()
        echo.EffectiveEchoTime = 2.98
        group.MREchoSequence = [echo]
    if "BodyPartExamined" in ds:
        del ds.BodyPartExamined


CHARACTER_SETS = {
    ("", "ISO 2022 IR 87"): "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ("", "ISO 2022 IR 149"): "Hong^Gildong=洪^吉洞=홍^길동",
    "GB18030": "Wang^XiaoDong=王^小东",
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 144": "Иванов^Пётр",
    "ISO_IR 192": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO_IR 6": "Miller^George",
}
"""Names, by the character set that is declared for them."""


def named_in(character_set):
    """Give a slice a name in a character set."""

    def edit(ds, k):
        ds.SpecificCharacterSet = list(character_set) if isinstance(character_set, tuple) else character_set
        ds.PatientName = CHARACTER_SETS[character_set]

    return edit
