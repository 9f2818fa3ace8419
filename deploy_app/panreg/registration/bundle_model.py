"""The bundle's inference workflow, run on two stacks in memory.

Preprocessing, alignment, the network and all field arithmetic are the bundle's; the application knows only
``configs/inference.json`` and what its evaluator returns.
"""

import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from panreg.failures import Code, Failure, causes
from panreg.ingest.stack import Stack
from panreg.registration.result import Array, Limits, Transform

__all__ = ["BundleModel", "Result", "as_text", "by_settings", "volume"]

INFERENCE = Path("configs") / "inference.json"
WEIGHTS = Path("models") / "model.pt"
QUIET = {"ignite": logging.CRITICAL, "monai.bundle.workflows": logging.ERROR}
"""Loggers of what nobody needs to read: what ends a run, which is raised, too, and that logging.conf is left out."""
OTHER_WEIGHTS = "one_person", "across_contrasts"  # keys of the description
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Result:
    """What the bundle's evaluator returns of one pair.

    Args:
        transform: fixed to moving.
        quality: the numbers of its report.
        overview: its picture, (height, width, 3), bytes.
        page: its page, HTML; None where none was asked for.
        limits: of the numbers, least and greatest value: those that the weights it took have of their own.
    """

    transform: Transform
    quality: Mapping[str, float]
    overview: npt.NDArray[np.uint8]
    page: str | None = None
    limits: Limits = field(default_factory=dict)


class BundleModel:
    """The bundle in the models folder.

    Args:
        models: the folder given to the application: the bundle itself, or a folder that holds it.

    Raises:
        Failure: E_WEIGHTS: no bundle, or weights that are not those its description was written for.
    """

    def __init__(self, models: Path) -> None:
        places = [models, *sorted(path for path in models.glob("*") if path.is_dir())]
        found = [place for place in places if (place / INFERENCE).is_file() and (place / WEIGHTS).is_file()]
        if not found:
            raise Failure(Code.E_WEIGHTS, f"The models folder holds no bundle ({INFERENCE}, {WEIGHTS}): mount it.")
        self.root = found[0].resolve()
        for weights in self.weights:
            if self._describe(weights).get("sha256") != _sha256(self.root / weights):
                named = f"{weights.with_suffix('.json').name}, sha256"
                message = f"{weights} is not the file that its description ({named}) names: install it anew."
                raise Failure(Code.E_WEIGHTS, message)

    @cached_property
    def weights(self) -> list[Path]:
        """The weights, and those for one person and for different contrasts that their description names, if any."""
        names = (self.description.get(key) for key in OTHER_WEIGHTS)
        return [WEIGHTS, *(WEIGHTS.with_name(name) for name in names if name)]

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights; of several files, that of their digests, one after the other."""
        digests = [_sha256(self.root / weights) for weights in self.weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @cached_property
    def description(self) -> dict[str, Any]:
        """What ``model.json`` says of the weights."""
        return self._describe(WEIGHTS)

    def intended_input(self, across_contrasts: bool) -> dict[str, Any]:
        """What images the weights suit, by their description; two of different contrasts may have others."""
        name = self.description.get("across_contrasts") if across_contrasts else None
        return dict(self._describe(WEIGHTS.with_name(name or WEIGHTS.name)).get("intended_input", {}))

    def _describe(self, weights: Path) -> dict[str, Any]:
        path = (self.root / weights).with_suffix(".json")
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise Failure(Code.E_WEIGHTS, f"The weights have no readable description ({path.name}).") from error
        return dict(content)

    @property
    def device(self) -> str:
        """Kind of device that the workflow will choose."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def register(self, fixed: MetaTensor, moving: MetaTensor, options: Mapping[str, Any]) -> Result:
        """Register two images.

        Args:
            fixed: image that stays, as ``volume`` hands it over.
            moving: image to align, likewise.
            options: keys of ``configs/inference.json`` and their values.

        Raises:
            Failure: E_NO_MATCH: the bundle says what is wrong with the two. E_WEIGHTS: it says that nothing is.
        """
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        pair = {"name": "pair", "moving": moving, "fixed": fixed}
        with _engine_quiet():
            workflow = ConfigWorkflow(
                str(self.root / INFERENCE),
                meta_file=str(self.root / "configs" / "metadata.json"),
                logging_file=False,
                workflow_type="inference",
                bundle_root=as_text(str(self.root)),
                save=False,
                tabulate=False,
                **{"dataset#data": [pair]},
                **options,
            )
            workflow.initialize()
            try:
                workflow.run()
            except Exception as error:
                raise _refusal(error) or error from error
        (item,) = workflow.parser.get_parsed_content("evaluator").state.output
        choice, quality = workflow.parser.get_parsed_content("weights_choice"), item["quality"]
        chosen = choice.weights_for(quality)
        limits = self._describe(WEIGHTS.with_name(Path(chosen).name)).get("limits", {})
        return Result(item["transform"], quality, item["overview"], item.get("page"), limits)


def as_text(text: str) -> str:
    """Write text so that the bundle's configuration takes it as it stands: MONAI turns each # into ::, in any text."""
    return "$" + re.sub("[#@%$]", lambda mark: rf"\x{ord(mark[0]):02x}", ascii(text))


@contextmanager
def _engine_quiet() -> Iterator[None]:
    """Keep the engine from logging what nobody needs to read."""
    before = {name: logging.getLogger(name).level for name in QUIET}
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise Failure(Code.E_WEIGHTS, f"The models folder lacks {path.name}, which model.json names.") from error


def volume(stack: Stack, values: Array, padding: float) -> MetaTensor:
    """Hand a stack over as the bundle reads images.

    Args:
        stack: places the values.
        values: ``[k, j, i]``.
        padding: value where nothing was imaged; the bundle draws it beyond the image, too.

    Returns:
        (1, columns, rows, slices) with its RAS affine, the padding in its ``meta``.
    """
    image = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 1, 0)))[None]
    return MetaTensor(image, affine=torch.from_numpy(RAS_FROM_LPS @ stack.affine), meta={"padding_value": padding})


def by_settings(sentence: str) -> str:
    """Name the application's settings where the bundle's sentence names options of its command line."""
    sentence = re.sub(r",? (or|and) --(?!affine)\w+", "", sentence)
    sentence = re.sub(r"--affine ((?:\w+, )*\w+ or \w+|\w+)", r"PANREG_AFFINE=\1", sentence)
    return sentence.replace("PANREG_AFFINE=or ", "PANREG_AFFINE ")


def _refusal(error: BaseException) -> Failure | None:
    """Find the bundle's sentence about the images, or its weights: a ValueError, which MONAI wraps in others.

    ``OutcomeError`` is the bundle's kind for what lies with no image (weights that diverged); the application, which
    doesn't import the bundle, knows it by its name.
    """
    for cause in causes(error):
        if any(kind.__name__ == "OutcomeError" for kind in type(cause).__mro__):
            sentence = re.sub(r"\([^()]*/([^/()]+)\)", r"(\1)", str(cause))  # no paths
            return Failure(Code.E_WEIGHTS, f"The installed bundle can't register: {by_settings(sentence)}")
        if isinstance(cause, ValueError):
            return Failure(Code.E_NO_MATCH, f"The two series can't be registered: {by_settings(str(cause))}")
    return None
