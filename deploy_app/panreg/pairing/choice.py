"""Which stack is fixed and which moves: decided by rules or not at all, whatever the files' names and order.

The first rule that applies decides: Series Instance UIDs, the folders ``fixed/`` and ``moving/``, rules over attributes
and, for exactly two stacks of different studies, the day. Everything else is ambiguous. Then, always, both must be of
the same patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from panreg.dicom.attributes import pydicom_silenced
from panreg.dicom.functional_groups import laterality_of
from panreg.failures import Code, Failure
from panreg.ingest import stacks as stacks_of_scan
from panreg.ingest.stack import AnyStack, RefusedStack, Stack, accepted
from panreg.pairing.conformity import check_conformity
from panreg.pairing.dates import in_time
from panreg.pairing.folders import ROLES, in_folder, is_inside
from panreg.pairing.identity import check_patient
from panreg.pairing.naming import HOW_TO_CHOOSE, LISTED, describe, listed, modality_of
from panreg.pairing.series_rules import matches
from panreg.settings import PairSettings

__all__ = ["Pair", "choose_pair"]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two stacks of one patient.

    Args:
        fixed: whose grid the result lies on.
        moving: which is aligned.
        rule: what decided: series_uid, folders, series_rules or dates.
        warnings: what a person should look at, without patient data; the stacks' own stay with them.
    """

    fixed: Stack
    moving: Stack
    rule: str
    warnings: tuple[str, ...] = ()


@pydicom_silenced()
def choose_pair(
    stacks: Sequence[AnyStack], settings: PairSettings, input_root: Path, skipped: Mapping[str, int] | None = None
) -> Pair:
    """Choose the pair, and check that it is one that may be registered.

    Args:
        stacks: all that were found. Those that can't be chosen (localizers, our own results, too few slices) are left
            out; a damaged one can, and is then refused.
        settings: the rules.
        input_root: folder that the folders ``fixed/`` and ``moving/`` lie in.
        skipped: what the scan left out, counted by reason, for the sentence that says that there is no pair.

    Raises:
        Failure: E_NO_INPUT, E_AMBIGUOUS, E_NO_MATCH, E_SAME, E_UID_COLLISION, E_PATIENT, or the refusal of a chosen
            stack.
    """
    images = stacks_of_scan.candidates(stacks)
    candidates = [stack for stack in images if len(stack.frames) >= settings.min_slices]
    thin = [stack for stack in images if len(stack.frames) < settings.min_slices]
    _check_thickness(candidates, thin, settings, input_root)
    if len(candidates) < 2:
        _refuse_copies(candidates, settings, input_root)
        _refuse_shared(candidates, settings, input_root)
        damaged = [f" That one is damaged: {s.refusal.message}" for s in candidates if isinstance(s, RefusedStack)]
        raise Failure(
            Code.E_NO_INPUT,
            f"The input holds {len(candidates)} image stacks of at least {settings.min_slices} slices"
            f"{_too_thin(thin, settings)}, and a pair is needed: send fixed and moving as one job (a gateway that "
            f"groups by study sends two).{''.join(damaged)}{_left_out(skipped or {})}",
        )
    by_name = {"series_uid": _by_series_uid, "folders": _by_folder, "series_rules": _by_rules, "dates": _by_date}
    for name, rule in by_name.items():
        chosen = rule(candidates, settings, input_root)
        if chosen is not None:
            return _checked(*chosen, name, settings)
    raise _ambiguous(candidates, "fixed or moving")


def _check_thickness(
    candidates: list[AnyStack], thin: list[AnyStack], settings: PairSettings, input_root: Path
) -> None:
    """Refuse a choice that names nothing but stacks with too few slices, by what is wrong with them.

    Raises:
        Failure: E_TOO_FEW.
    """
    for role in ROLES:
        named = _named(thin, role, settings, input_root)
        if named and not _named(candidates, role, settings, input_root):
            raise Failure(Code.E_TOO_FEW, f"The {role} image is out of the choice{_too_thin(named, settings)}.")


def _named(stacks: list[AnyStack], role: str, settings: PairSettings, input_root: Path) -> list[AnyStack]:
    """Find the stacks that the first rule that says anything about a role names."""
    uid, path = getattr(settings, f"{role}_series_uid"), getattr(settings, f"{role}_path")
    if uid is not None:
        return [stack for stack in stacks if stack.series_uid == uid.strip()]
    inside = [stack for stack in stacks if all(in_folder(stack, role, settings, input_root))]
    if inside or path is not None or role not in settings.series:
        return inside
    return [stack for stack in stacks if matches(stack.frames[0], settings.series[role])]


def _too_thin(thin: list[AnyStack], settings: PairSettings) -> str:
    """Name the stacks that have too few slices, and the setting that says so; nothing where there are none."""
    if not thin:
        return ""
    return f" (below {settings.min_slices} slices, PANREG_MIN_SLICES: {listed(thin)})"


# ---------------------------------------------------------------------------------------------------------------- rules
_Chosen = tuple[AnyStack, AnyStack] | None


def _by_series_uid(candidates: list[AnyStack], settings: PairSettings, input_root: Path) -> _Chosen:
    uids = {"fixed": settings.fixed_series_uid, "moving": settings.moving_series_uid}
    named = {role: _of_series(candidates, uid, role, settings) for role, uid in uids.items() if uid is not None}
    if len(named) == 1:
        ((role, stack),) = named.items()
        named |= _beside(stack, candidates, "moving" if role == "fixed" else "fixed", settings, input_root)
    return _completed(candidates, named)


def _beside(
    named: AnyStack, candidates: list[AnyStack], role: str, settings: PairSettings, input_root: Path
) -> dict[str, AnyStack]:
    """Find the other image by its folder: by one that the settings name, or of several that are left by the usual."""
    begun = _begun(candidates, role, settings, input_root)
    if getattr(settings, f"{role}_path") is not None:
        return {role: _only_inside(begun, role)}
    left = [(stack, share) for stack, share in begun if stack is not named]
    is_open = len(candidates) > 2 and any(all(share) for _, share in left)
    return {role: _only_inside(left, role)} if is_open else {}


def _of_series(candidates: list[AnyStack], uid: str, role: str, settings: PairSettings) -> AnyStack:
    """Find the stack of a series; where it has several, a rule for the role may tell which."""
    found = [stack for stack in candidates if stack.series_uid == uid.strip()]
    if len(found) > 1 and role in settings.series:
        found = [stack for stack in found if matches(stack.frames[0], settings.series[role])]
    return _only(found, role, "has the Series Instance UID that was asked for")


def _by_folder(candidates: list[AnyStack], settings: PairSettings, input_root: Path) -> _Chosen:
    """One folder suffices for the rule to apply: who named one image has chosen, and nothing may choose otherwise."""
    begun = {role: _begun(candidates, role, settings, input_root) for role in ROLES}
    paths = {role for role in ROLES if getattr(settings, f"{role}_path") is not None}
    if not paths and not any(begun.values()):
        return None
    if len(paths) == 1 and not any(begun[role] for role in set(ROLES) - paths):  # of the other image nothing is said
        return _completed(candidates, {role: _only_inside(begun[role], role) for role in paths})
    for role in ROLES:
        if not any(all(share) for _, share in begun[role]):
            _refuse_shared([stack for stack, _ in begun[role]], settings, input_root)
    fixed, moving = (_only_inside(begun[role], role) for role in ROLES)
    return fixed, moving


def _begun(
    candidates: list[AnyStack], role: str, settings: PairSettings, input_root: Path
) -> list[tuple[AnyStack, list[bool]]]:
    """Find the stacks of which an image lies in the folder for a role, and which of their images do."""
    shares = [(stack, in_folder(stack, role, settings, input_root)) for stack in candidates]
    return [(stack, share) for stack, share in shares if any(share)]


def _only_inside(begun: list[tuple[AnyStack, list[bool]]], role: str) -> AnyStack:
    """Take the only stack all of whose images lie in the folder for a role; say so where some images are missing."""
    inside = [stack for stack, share in begun if all(share)]
    if begun and not inside:
        stack, share = max(begun, key=lambda one: sum(one[1]))
        message = (
            f"Only {sum(share)} of {len(share)} images of one stack ({describe(stack)}) lie in the folder for the "
            f"{role} image: put all of them there."
        )
        raise Failure(Code.E_NO_MATCH, message)
    return _only(inside, role, f"lies in the folder for the {role} image")


def _by_rules(candidates: list[AnyStack], settings: PairSettings, input_root: Path) -> _Chosen:
    remaining, named = list(candidates), {}
    for role in ROLES:
        if role in settings.series:
            found = [stack for stack in remaining if matches(stack.frames[0], settings.series[role])]
            named[role] = _only(found, role, f"meets the rule for the {role} image")
            remaining.remove(named[role])
    return _completed(candidates, named)


def _by_date(candidates: list[AnyStack], settings: PairSettings, input_root: Path) -> _Chosen:
    if len(candidates) != 2 or candidates[0].study_uid == candidates[1].study_uid:
        return None
    ordered = in_time(*candidates)
    return ordered if ordered is None or settings.order == "prior_is_fixed" else (ordered[1], ordered[0])


def _completed(candidates: list[AnyStack], named: Mapping[str, AnyStack]) -> _Chosen:
    """Fixed and moving, where one may be named and the other then is the only one left."""
    if len(named) == 1:
        ((role, stack),) = named.items()
        other_role = "moving" if role == "fixed" else "fixed"
        other = _only([left for left in candidates if left is not stack], other_role, "is left")
        return (stack, other) if role == "fixed" else (other, stack)
    return (named["fixed"], named["moving"]) if named else None


def _only(found: list[AnyStack], role: str, meaning: str) -> AnyStack:
    if not found:
        raise Failure(Code.E_NO_MATCH, f"No image stack {meaning} ({role}): check the choice against the input.")
    if len(found) > 1:
        raise _ambiguous(found, role)
    return found[0]


def _ambiguous(found: list[AnyStack], role: str) -> Failure:
    return Failure(Code.E_AMBIGUOUS, f"{len(found)} image stacks may be {role} ({listed(found)}): {HOW_TO_CHOOSE}.")


# --------------------------------------------------------------------------------------------------------------- checks
def _refuse_copies(candidates: list[AnyStack], settings: PairSettings, input_root: Path) -> None:
    """Refuse one image that was sent, or asked for, as fixed and as moving.

    Raises:
        Failure: E_SAME.
    """
    uids = [uid and uid.strip() for uid in (settings.fixed_series_uid, settings.moving_series_uid)]
    for stack in candidates:
        files = [(frame.path, *frame.copies) for frame in stack.frames]
        sent = [all(any(is_inside(p, role, settings, input_root) for p in paths) for paths in files) for role in ROLES]
        if all(sent) or uids == [stack.series_uid] * 2:
            raise _same(stack)


def _refuse_shared(stacks: list[AnyStack], settings: PairSettings, input_root: Path) -> None:
    """Refuse two images that are one series by its UID: some of its images were sent as fixed, the others as moving.

    Raises:
        Failure: E_UID_COLLISION, or the refusal of a series that spans studies or patients.
    """
    for stack in stacks:
        fixed, moving = (in_folder(stack, role, settings, input_root) for role in ROLES)
        if (True, False) in zip(fixed, moving) and (False, True) in zip(fixed, moving):
            if isinstance(stack, RefusedStack) and stack.refusal.code in (Code.E_TWO_PATIENTS, Code.E_UID_COLLISION):
                raise stack.refusal
            message = (
                f"The images in the folders for fixed and moving have one Series Instance UID ({describe(stack)}): "
                "send each image with the UID of its own series."
            )
            raise Failure(Code.E_UID_COLLISION, message)


def _same(stack: AnyStack) -> Failure:
    return Failure(Code.E_SAME, f"Fixed and moving are the same image stack ({describe(stack)}): choose two.")


def _left_out(skipped: Mapping[str, int]) -> str:
    """List what was left out, the most frequent first; nothing where there is nothing."""
    if not skipped:
        return ""
    most = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{reason.replace('_', ' ')}: {count}" for reason, count in most[:LISTED])
    hint = " Deflated files must be stored in another transfer syntax." if skipped.get("deflated") else ""
    return f" Files that were left out: {listed}.{hint}"


def _checked(fixed: AnyStack, moving: AnyStack, rule: str, settings: PairSettings) -> Pair:
    """Refuse a pair that must not be registered; else make it, with what to look at."""
    if fixed is moving:
        raise _same(fixed)
    for stack in (fixed, moving):
        if isinstance(stack, RefusedStack) and stack.refusal.code is Code.E_TWO_PATIENTS:
            raise stack.refusal
    warnings = check_patient(fixed, moving, settings.patient_check, settings.patient_conflict)
    pair = Pair(accepted(fixed), accepted(moving), rule)
    if modality_of(fixed) != modality_of(moving) and not settings.allow_cross_modality:
        raise Failure(
            Code.E_NO_MATCH,
            f"The modalities differ (fixed: {describe(fixed)}; moving: {describe(moving)}): choose others, or set "
            "PANREG_ALLOW_CROSS_MODALITY=true.",
        )
    warnings += check_conformity(pair.fixed, pair.moving, settings.invalid_uids)
    if {laterality_of(stack.frames[0]) for stack in (fixed, moving)} >= {"L", "R"}:
        warnings += ("The Laterality of fixed and moving differs.",)
    return replace(pair, warnings=warnings)
