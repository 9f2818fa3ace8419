import hashlib
import json
import os
from dataclasses import replace
from datetime import datetime

import canaries
import numpy as np
import pytest
from application import ROOT
from jsonschema import Draft202012Validator
from panreg.failures import Code, Failure
from panreg.ingest.stack import RefusedStack
from panreg.output.manifest import (
    Manifest,
    describe_geometry,
    describe_inputs,
    describe_pair,
    describe_refused,
    versions,
)
from panreg.output.manifest_content import ManifestContent, schema
from panreg.output.publication import PublishedObject
from panreg.pairing.choice import Pair
from pydantic import ValidationError
from synthetic import FIXED_AFFINE, MOVING_AFFINE, stack_of, write_series

SCHEMA = json.loads((ROOT / "deploy_app" / "run_manifest.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)


def read(folder):
    return json.loads((folder / "run_manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two series whose every identifying attribute holds a canary."""
    folder, stored = tmp_path_factory.mktemp("input"), np.ones((4, 5, 6))
    options = {"edit": lambda ds, k: canaries.plant(ds)}
    fixed = write_series(folder / "a", stored, FIXED_AFFINE, name="fixed", series_number=3, **options)
    moving = write_series(
        folder / "b", stored, MOVING_AFFINE, name="moving", series_number=8, date="20230105", **options
    )
    return Pair(stack_of(fixed, FIXED_AFFINE), stack_of(moving, MOVING_AFFINE), "dates", ("A warning.",))


OBJECT = PublishedObject("dicom/dsro.dcm", "1.2.840.10008.5.1.4.1.1.66.3", "2.25.77", "c" * 64)


def fill(manifest, pair, dates=False, plain_uids=False):
    """Record every section, as the application does."""
    refused = RefusedStack(pair.moving.frames, Failure(Code.E_MISSING_SLICES, "2 slices are missing."))
    manifest.record(
        pair=describe_pair(pair, dates),
        inputs=describe_inputs(pair, plain_uids),
        skipped={"not_dicom": 3},
        refused=describe_refused([pair.fixed, refused]),
        geometry=describe_geometry(pair),
        dsro={"dimensions": (4, 5, 6), "spacing_mm": 2.0, "size_bytes": 1440, "max_error_mm": np.float32(0.1)}
        | {"p99_error_mm": 0.05, "mean_error_mm": 0.01, "covers": "image", "body_max_error_mm": 0.08}
        | {"body_p99_error_mm": 0.04, "body_mean_error_mm": 0.01},
        quality={"similarity_before": np.float64(0.5), "similarity_after": float("nan")},
        versions=versions("0.1.0"),
        weights_sha256="a" * 64,
        config_sha256="b" * 64,
        device="cpu",
        timings={"registration": 1.5},
    )
    manifest.warn(pair.warnings)


def test_a_run_is_running_until_it_is_ok(tmp_path, pair):
    manifest = Manifest(tmp_path)
    assert read(tmp_path)["status"] == "running"
    VALIDATOR.validate(read(tmp_path))
    fill(manifest, pair)
    assert read(tmp_path)["pair"] is None  # the file changes with the status only
    manifest.succeed([OBJECT])
    content = read(tmp_path)
    VALIDATOR.validate(content)
    assert (content["status"], content["code"], content["message"]) == ("ok", None, None)
    assert content["outputs"][0]["sha256"] == "c" * 64
    assert os.listdir(tmp_path) == ["run_manifest.json"]


def test_a_manifest_says_when_its_run_began(tmp_path):
    clock = datetime(2024, 2, 3, 4, 5, 6, 7)
    manifest = Manifest(tmp_path, clock)
    assert datetime.fromisoformat(read(tmp_path)["started"]) == clock.replace(microsecond=0).astimezone()
    manifest.fail(Failure(Code.E_NO_INPUT, "No."))
    assert datetime.fromisoformat(read(tmp_path)["started"]).tzinfo is not None
    VALIDATOR.validate(read(tmp_path))
    Manifest(tmp_path)
    assert datetime.fromisoformat(read(tmp_path)["started"]) > clock.astimezone()


def test_a_complete_manifest_says_what_was_recorded(tmp_path, pair):
    manifest = Manifest(tmp_path)
    fill(manifest, pair)
    manifest.succeed([OBJECT])
    content = read(tmp_path)
    assert content["pair"]["rule"] == "dates"
    assert content["pair"]["moving"] == {"series_number": 8, "modality": "MR", "slices": 4}
    assert content["refused"] == [content["pair"]["moving"] | {"code": "E_MISSING_SLICES"}]
    assert content["geometry"]["fixed"]["size"] == [6, 5, 4]
    assert content["geometry"]["fixed"]["spacing_mm"] == pytest.approx([2.5, 3, 4])
    assert content["geometry"]["fixed"]["tilt_degrees"] == pytest.approx(0, abs=1e-3)
    assert content["quality"] == {"similarity_before": 0.5, "similarity_after": None}  # JSON has no NaN
    assert content["dsro"]["max_error_mm"] == pytest.approx(0.1)
    assert content["warnings"] == ["A warning."]
    assert set(content["versions"]) == {"application", "sdk", "torch", "cuda", "pydicom", "highdicom"}


def test_inputs_are_known_by_their_hashes_and_only_if_asked_by_their_uids(pair):
    hashed, plain = describe_inputs(pair), describe_inputs(pair, plain_uids=True)
    frames = [*pair.fixed.frames, *pair.moving.frames]
    for frame, item, plain_item in zip(frames, hashed, plain):
        assert item.sha256 == plain_item.sha256 == hashlib.sha256(frame.path.read_bytes()).hexdigest()
        assert plain_item.sop_instance_uid == frame.sop_instance_uid
        expected = hashlib.sha256(frame.sop_instance_uid.encode()).hexdigest()
        assert item.sop_instance_uid == f"sha256:{expected}"
    assert [item.role for item in hashed] == ["fixed"] * 4 + ["moving"] * 4


def test_dates_are_told_only_if_asked_for(pair):
    assert "date" not in json.loads(describe_pair(pair).model_dump_json())["fixed"]
    assert json.loads(describe_pair(pair, dates=True).model_dump_json())["fixed"]["date"] == "2024-01-10"
    undated = stack_of([frame.path for frame in pair.fixed.frames], FIXED_AFFINE)
    for day, told in (("19000101", "2024-01-10"), ("20240111", "2024-01-11")):
        undated.header.AcquisitionDate = day
        content = json.loads(describe_pair(replace(pair, fixed=undated), dates=True).model_dump_json())
        assert content["fixed"]["date"] == told


def test_nothing_that_identifies_a_patient_is_in_the_manifest(tmp_path, pair):
    manifest = Manifest(tmp_path)
    fill(manifest, pair)
    manifest.succeed([OBJECT])
    assert canaries.found_below(tmp_path) == []
    manifest.fail(ValueError(f"Invalid value {pair.fixed.header.PatientName}"))
    assert canaries.found_below(tmp_path) == []
    assert "2024" not in (tmp_path / "run_manifest.json").read_text()
    assert pair.fixed.sop_instance_uids[0] not in (tmp_path / "run_manifest.json").read_text()
    assert str(tmp_path) not in (tmp_path / "run_manifest.json").read_text()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Failure(Code.E_PATIENT, "They differ."), Code.E_PATIENT, "They differ."),
        (KeyError("Doe^Jane"), Code.E_INTERNAL, "Something unforeseen went wrong (KeyError)."),
        (KeyboardInterrupt(), Code.E_INTERNAL, "Something unforeseen went wrong (KeyboardInterrupt)."),
    ],
)
def test_a_failed_run_says_why_and_has_no_outputs(tmp_path, pair, error, code, message):
    manifest = Manifest(tmp_path)
    fill(manifest, pair)
    manifest.succeed([OBJECT])
    assert manifest.fail(error) is code
    content = read(tmp_path)
    VALIDATOR.validate(content)
    assert (content["status"], content["code"], content["message"]) == ("failed", code.value, message)
    assert content["outputs"] == []


def test_a_warning_is_said_once(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.warn(["One.", "Two."])
    manifest.warn(["Two.", "Three."])
    manifest.succeed([])
    assert read(tmp_path)["warnings"] == ["One.", "Two.", "Three."]
    assert ManifestContent().warnings == ()


def test_a_section_that_the_schema_does_not_know_is_refused(tmp_path):
    manifest = Manifest(tmp_path)
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"]) == set(read(tmp_path))
    for name in ("patient", "status", "schema"):
        with pytest.raises(KeyError, match=name):
            manifest.record(**{name: "Doe^Jane"})


def test_a_section_that_is_not_what_the_schema_says_is_refused_without_its_value(tmp_path):
    manifest = Manifest(tmp_path)
    for wrong in ({"timings": {"all": "Doe^Jane"}}, {"weights_sha256": "Doe^Jane"}, {"pair": {"rule": "Doe^Jane"}}):
        with pytest.raises(ValidationError) as info:
            manifest.record(**wrong)
        assert "Doe" not in str(info.value)
    manifest.succeed([])
    VALIDATOR.validate(read(tmp_path))


def test_the_schema_is_generated_from_the_model():
    assert schema() == SCHEMA
    Draft202012Validator.check_schema(SCHEMA)


def test_a_manifest_that_can_not_be_replaced_stays_whole(tmp_path, monkeypatch):
    manifest = Manifest(tmp_path)
    before = (tmp_path / "run_manifest.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure) as info:
        manifest.succeed([OBJECT])
    assert info.value.code is Code.E_OUTPUT
    assert (tmp_path / "run_manifest.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["run_manifest.json"]


def test_schema_and_model_see_the_same_faults(tmp_path):
    Manifest(tmp_path)
    good = read(tmp_path)
    for change in (
        {"status": "done"},
        {"extra": 1},
        {"weights_sha256": "xyz"},
        {"inputs": [{"role": "fixed"}]},
        {"outputs": [{"path": "/etc", "sop_class_uid": "1", "sop_instance_uid": "1", "sha256": "a" * 64}]},
        {"timings": {"all": "long"}},
        {"pair": {"rule": "guess", "fixed": {}, "moving": {}}},
    ):
        assert not VALIDATOR.is_valid(good | change)
        with pytest.raises(ValidationError):
            ManifestContent.model_validate_json(json.dumps(good | change))
    assert not VALIDATOR.is_valid({k: v for k, v in good.items() if k != "device"})


def test_canaries_are_planted_in_forty_attributes_and_found_in_any_coding(pair):
    header = pair.fixed.header
    assert canaries.plant(header) >= 40
    assert len(canaries.found(str(header))) >= 40
    name = str(header.PatientName)
    for content in (name, name.lower(), name.encode(), name.encode("utf-16-le"), "born 1923-11-17", "19231117"):
        assert canaries.found(content)
    assert not canaries.found("series 3, MR, 24 slices")
