"""``run_manifest.json``: what a run read, decided, wrote and used, for machines; written also when it fails.

It holds numbers, codes, hashes and sentences of our own, and nothing that identifies a patient. Its structure is
``panreg.output.manifest_content``, and as a JSON schema ``run_manifest.schema.json``.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from panreg.dicom.attributes import integer, pydicom_silenced
from panreg.failures import Code, as_failure
from panreg.ingest.stack import AnyStack, RefusedStack, Stack
from panreg.output.manifest_content import GeometryEntry, InputEntry, ManifestContent, PairEntry, RefusedEntry, Role
from panreg.output.page import PublishedPage
from panreg.output.publication import PublishedObject, output_failures, sync
from panreg.pairing.choice import Pair
from panreg.pairing.dates import day_of
from panreg.pairing.naming import modality_of

__all__ = [
    "NAME",
    "Manifest",
    "declare_ok",
    "describe_geometry",
    "describe_inputs",
    "describe_pair",
    "describe_refused",
    "versions",
]

NAME = "run_manifest.json"
SECTIONS = ManifestContent.model_fields.keys() - {"schema_name", "status", "started", "code", "message"}


class Manifest:
    """The manifest of one run: ``running`` from its start on, then ``ok`` or ``failed``.

    Args:
        output: the run's output folder.
        clock: when the run began; now, if it isn't given.
    """

    def __init__(self, output: Path, clock: datetime | None = None) -> None:
        self._path = output / NAME
        self._content = ManifestContent(started=(clock or datetime.now()).astimezone().replace(microsecond=0))
        _replace(self._path, self._content)

    def record(self, **sections: Any) -> None:
        """Set sections; the file follows with ``succeed`` or ``fail``.

        Args:
            sections: by the names of ``ManifestContent``, entries or plain values.

        Raises:
            KeyError: there is no such section.
            pydantic.ValidationError: a section is not what the manifest holds there.
        """
        unknown = sections.keys() - SECTIONS
        if unknown:
            raise KeyError(f"the manifest has no {', '.join(sorted(unknown))}")
        self._content = ManifestContent.model_validate(dict(self._content) | sections)

    def time(self, step: str, seconds: float) -> None:
        """Keep how long a step took."""
        self.record(timings=self._content.timings | {step: round(seconds, 3)})

    def warn(self, sentences: Iterable[str]) -> None:
        """Add warnings, each once."""
        self.record(warnings=tuple(dict.fromkeys([*self._content.warnings, *sentences])))

    def announce(self, objects: Sequence[PublishedObject], page: PublishedPage | None = None) -> None:
        """Say what is about to appear: of a run that is killed then, the next can tell that its output is complete."""
        self._write("running", **_outputs(objects, page))

    def succeed(self, objects: Sequence[PublishedObject], page: PublishedPage | None = None) -> None:
        """Declare the output valid."""
        self._write("ok", **_outputs(objects, page))

    def fail(self, error: BaseException) -> Code:
        """Say why there is no output; the code to exit with.

        Args:
            error: what ended the run; see ``as_failure``.
        """
        failure = as_failure(error)
        self._write("failed", outputs=(), page=None, code=failure.code.value, message=failure.message)
        return failure.code

    def _write(self, status: str, **changes: Any) -> None:
        state = {"status": status, "code": None, "message": None}
        self._content = ManifestContent.model_validate(dict(self._content) | state | changes)
        _replace(self._path, self._content)


def _outputs(objects: Sequence[PublishedObject], page: PublishedPage | None) -> dict[str, Any]:
    return {"outputs": [asdict(found) for found in objects], "page": None if page is None else asdict(page)}


def declare_ok(output: Path, content: ManifestContent) -> None:
    """Declare the output of a run valid that was killed before it could.

    Args:
        output: its folder.
        content: what its manifest says.
    """
    _replace(output / NAME, content.model_copy(update={"status": "ok"}))


def _replace(path: Path, content: ManifestContent) -> None:
    """Replace the file at once: a reader sees the old or the new one, whole."""
    text = content.model_dump_json(indent=4) + "\n"
    temporary = path.with_name(f".{NAME}.part")
    with output_failures():
        try:
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def describe_pair(pair: Pair, dates: bool = False) -> PairEntry:
    """Describe which stacks were registered, and why these; their days only if asked for."""
    return PairEntry.model_validate({"rule": pair.rule} | {role: _stack(stack, dates) for role, stack in _roles(pair)})


def describe_inputs(pair: Pair, plain_uids: bool = False) -> tuple[InputEntry, ...]:
    """Describe every file of the pair by hashes; the SOP Instance UIDs plainly only if asked for."""
    return tuple(
        InputEntry(
            role=role,
            sop_instance_uid=frame.sop_instance_uid if plain_uids else _hashed(frame.sop_instance_uid),
            sha256=_file_digest(frame.path),
        )
        for role, stack in _roles(pair)
        for frame in {frame.sop_instance_uid: frame for frame in stack.frames}.values()
    )


def describe_refused(stacks: Iterable[AnyStack]) -> list[RefusedEntry]:
    """Describe the stacks that a check refused."""
    refused = [stack for stack in stacks if isinstance(stack, RefusedStack)]
    return [RefusedEntry(**_stack(stack, False), code=stack.refusal.code.value) for stack in refused]


def describe_geometry(pair: Pair, result: Stack | None = None) -> GeometryEntry:
    """Describe the grids: sizes (columns, rows, slices), spacings along them in mm, gantry tilt in degrees.

    Args:
        pair: whose grids.
        result: the grid of the results, once it is chosen.
    """
    stacks = dict[str, Stack](_roles(pair)) | ({"result": result} if result is not None else {})
    return GeometryEntry.model_validate(
        {
            role: {"size": stack.shape[::-1], "spacing_mm": stack.spacing_mm, "tilt_degrees": stack.tilt_degrees}
            for role, stack in stacks.items()
        }
    )


def versions(application: str) -> dict[str, str | None]:
    """List the versions that a result depends on."""
    packages = {"sdk": "monai-deploy-app-sdk", "torch": "torch", "pydicom": "pydicom", "highdicom": "highdicom"}
    found = {name: version(package) for name, package in packages.items()}
    return {"application": application, **found, "cuda": torch.version.cuda}


def _roles(pair: Pair) -> tuple[tuple[Role, Stack], tuple[Role, Stack]]:
    return ("fixed", pair.fixed), ("moving", pair.moving)


@pydicom_silenced()
def _stack(stack: AnyStack, dates: bool) -> dict[str, Any]:
    day = day_of(stack) if dates else None
    described = {"series_number": integer(stack.header, "SeriesNumber"), "modality": modality_of(stack)}
    return described | {"slices": len(stack.frames)} | ({"date": day} if day else {})


def _hashed(uid: str) -> str:
    return f"sha256:{hashlib.sha256(uid.encode()).hexdigest()}"


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
