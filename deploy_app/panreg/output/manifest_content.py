"""What ``run_manifest.json`` holds: a model, and the JSON schema that is generated from it.

Write the file by: ``cd deploy_app && python -m panreg.output.manifest_content > run_manifest.schema.json``.
"""

import datetime
import json
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

__all__ = [
    "GeometryEntry",
    "GridEntry",
    "InputEntry",
    "ManifestContent",
    "OutputEntry",
    "PageEntry",
    "PairEntry",
    "RefusedEntry",
    "StackEntry",
    "StoredFieldEntry",
    "schema",
]

SCHEMA: Literal["pan_registration/run_manifest/1"] = "pan_registration/run_manifest/1"
MODEL = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]
CodeName = Annotated[str, Field(pattern=r"^E_[A-Z_]+$")]
Role = Literal["fixed", "moving"]
Measured = Annotated[float | None, AfterValidator(lambda x: x if x is None or math.isfinite(x) else None)]
"""A number, or null in the place of NaN and infinity, which JSON does not have."""


def left_out(description: str) -> Any:
    """Make a field that is written only where it has a value."""
    return Field(default=None, description=description, exclude_if=lambda value: value is None)


class Entry(BaseModel):
    """A part of the manifest: nothing but what is named here, and no values in its errors."""

    model_config = MODEL


class StackEntry(Entry):
    """A stack of images."""

    series_number: int | None
    modality: Literal["CT", "MR", "other"]
    slices: int
    date: datetime.date | None = left_out("of the images; only if the settings say dates")


class RefusedEntry(Entry):
    """A stack that a check refused."""

    series_number: int | None
    modality: Literal["CT", "MR", "other"]
    slices: int
    code: CodeName


class PairEntry(Entry):
    """Which stacks were registered, and which rule chose them."""

    rule: Literal["series_uid", "folders", "series_rules", "dates"]
    fixed: StackEntry
    moving: StackEntry


class InputEntry(Entry):
    """A file of the pair."""

    role: Role
    sop_instance_uid: Annotated[
        str,
        Field(pattern=r"^(sha256:[0-9a-f]{64}|[0-9.]{1,64})$", description="hashed unless the settings say plain_uids"),
    ]
    sha256: Sha256


class OutputEntry(Entry):
    """An object that was written."""

    path: Annotated[str, Field(pattern=r"^dicom/[A-Za-z0-9_./-]+$")]
    sop_class_uid: Uid
    sop_instance_uid: Uid
    sha256: Sha256


class PageEntry(Entry):
    """The page of the registration, for a browser: no DICOM object."""

    path: Literal["report.html"]
    sha256: Sha256


class GridEntry(Entry):
    """The grid of an image."""

    size: tuple[int, int, int] = Field(description="columns, rows, slices")
    spacing_mm: tuple[float, float, float] = Field(description="along the size's axes; between planes along the normal")
    tilt_degrees: float


class GeometryEntry(Entry):
    """The grids of the pair and of the results."""

    fixed: GridEntry
    moving: GridEntry
    result: GridEntry | None = left_out("of the results: the fixed image's grid, or a straight one on its planes")


class StoredFieldEntry(Entry):
    """The grid of the Deformable Spatial Registration, and what storing the field on it cost."""

    dimensions: tuple[int, int, int] = Field(description="along x, y, z")
    spacing_mm: float
    size_bytes: int
    covers: Literal["image", "body"] = Field(
        description="what the grid lies over; beyond it the object displaces nothing"
    )
    body_max_error_mm: Measured = Field(description="in the body; without body_: at all voxels of the fixed image")
    body_p99_error_mm: Measured
    body_mean_error_mm: Measured
    max_error_mm: Measured
    p99_error_mm: Measured
    mean_error_mm: Measured


class ManifestContent(Entry):
    """All of the manifest, with what it says before anything is known."""

    model_config = MODEL | ConfigDict(
        title="Manifest of a run of the PAN registration application",
        json_schema_serialization_defaults_required=True,
        validate_by_name=True,
        serialize_by_alias=True,
    )

    schema_name: Literal["pan_registration/run_manifest/1"] = Field(default=SCHEMA, alias="schema")
    status: Literal["running", "ok", "failed"] = Field(default="running", description="dicom/ is valid with ok alone")
    started: AwareDatetime | None = Field(
        default=None, description="when the run began that wrote this; a run that may not use the folder writes nothing"
    )
    code: CodeName | None = Field(default=None, description="why the run failed")
    message: str | None = Field(default=None, description="the code in a sentence")
    pair: PairEntry | None = None
    inputs: tuple[InputEntry, ...] = ()
    outputs: tuple[OutputEntry, ...] = ()
    page: PageEntry | None = Field(default=None, description="beside dicom/; null where the settings leave it out")
    skipped: dict[str, int] = Field(default_factory=dict, description="files that were left out, counted by reason")
    refused: tuple[RefusedEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    geometry: GeometryEntry | None = None
    dsro: StoredFieldEntry | None = None
    quality: dict[str, Measured] = Field(default_factory=dict)
    versions: dict[str, str | None] = Field(default_factory=dict)
    weights_sha256: Sha256 | None = None
    config_sha256: Sha256 | None = Field(
        default=None, description="of the effective configuration: file, environment, overrides, kind of device"
    )
    device: str | None = None
    timings: dict[str, float] = Field(default_factory=dict, description="seconds")


class _Schema(GenerateJsonSchema):
    """Without titles and defaults of fields: the names say as much, and everything is written."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def schema() -> JsonSchemaValue:
    """Generate the JSON schema of what is written."""
    generated = ManifestContent.model_json_schema(mode="serialization", schema_generator=_Schema)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": SCHEMA}
    return head | generated


if __name__ == "__main__":
    print(json.dumps(schema(), indent=4))  # noqa: T201
