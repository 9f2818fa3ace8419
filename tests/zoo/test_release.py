"""What is published: its content, and that the tools of MONAI, the zoo and the Hub take it."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import release
import torch
import yaml
from monai.bundle import download_large_files
from monai.bundle.scripts import verify_metadata

NAME = "pan_registration"
VERIFY = """
import sys
sys.path.insert(0, {root!r})
from monai.bundle import ckpt_export
from monai.bundle.scripts import verify_net_in_out
files = dict(meta_file={root!r} + "/configs/metadata.json", config_file={root!r} + "/configs/inference.json")
verify_net_in_out(net_id="network_def", bundle_root={root!r}, device="cpu", **files)
ckpt_export(
    net_id="network_def",
    filepath={root!r} + "/models/verify_model.ts",
    ckpt_file={root!r} + "/models/model.pt",
    bundle_root={root!r},
    **files,
)
import bundle
assert bundle.__file__.startswith({root!r}), bundle.__file__
"""


@pytest.fixture
def unpacked(released, tmp_path):
    with zipfile.ZipFile(archive(released)) as file:
        file.extractall(tmp_path)
    return tmp_path / NAME


def archive(released):
    version = json.loads((released / NAME / "configs/metadata.json").read_text())["version"]
    return released / f"{NAME}_v{version}.zip"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_zip_holds_the_bundle_and_nothing_else(released):
    with zipfile.ZipFile(archive(released)) as file:
        names = file.namelist()
    tops = {name.split("/")[1] for name in names}
    assert {name.split("/")[0] for name in names} == {NAME}
    assert tops == {"LICENSE", "bundle", "configs", "docs", "models"}
    necessary = "configs/metadata.json configs/inference.json configs/train.json configs/logging.conf models/model.pt "
    necessary += "docs/README.md docs/data_license.txt bundle/__init__.py"
    assert {f"{NAME}/{name}" for name in necessary.split()} <= set(names)
    assert not [name for name in names if "deploy" in name or "__pycache__" in name or name.endswith(".pyc")]
    assert archive(released).stat().st_size < 60e6  # four files of weights, 14 MB each


def test_the_checksum_is_that_of_the_zip_and_the_same_files_give_the_same_zip(released, tmp_path):
    digest, name = archive(released).with_name(archive(released).name + ".sha256").read_text().split()
    assert (digest, name) == (sha256(archive(released)), archive(released).name)
    shutil.copytree(released / NAME, tmp_path / NAME)
    release.pack(tmp_path / NAME, tmp_path / "again.zip")
    assert sha256(tmp_path / "again.zip") == digest


def test_the_zoos_checks_pass_on_the_zip(bundle_root, unpacked, tmp_path):
    schema = tmp_path / "schema.json"
    shutil.copyfile(bundle_root / "tests/data/meta_schema_20240725.json", schema)
    verify_metadata(meta_file=str(unpacked / "configs/metadata.json"), filepath=str(schema))
    # in a process of its own, where the bundle's code can only be the zip's
    line = [sys.executable, "-c", VERIFY.format(root=str(unpacked))]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    network = torch.jit.load(unpacked / "models/verify_model.ts")
    assert network(torch.rand(1, 2, 33, 40, 32)).shape == (1, 4, 33, 40, 32)


def test_the_zoos_folder_gets_its_weights_from_the_release_host(released, tmp_path):
    folder = tmp_path / NAME
    shutil.copytree(released / "zoo" / NAME, folder)
    assert not list((folder / "models").glob("*.pt"))
    download_large_files(bundle_path=str(folder))
    for name in ("models/model.pt", "models/hippocampus.pt"):
        assert sha256(folder / name) == sha256(released / NAME / name)


def test_the_weights_addresses_are_those_of_the_host_given(released, tmp_path):
    release.stage_for_zoo(released / NAME, tmp_path / NAME, "https://example.org/v1")
    files = yaml.safe_load((tmp_path / NAME / "large_files.yml").read_text())["large_files"]
    assert [file["url"] for file in files] == [f"https://example.org/v1/{file['path']}" for file in files]
    assert all(file["hash_type"] == "sha256" and len(file["hash_val"]) == 64 for file in files)


def test_the_hubs_folder_has_a_model_card_with_working_links(released):
    folder = released / "huggingface" / NAME
    header, text = re.fullmatch(r"---\n(.*?)\n---\n(.*)", (folder / "README.md").read_text(), re.S).groups()
    card = yaml.safe_load(header)
    assert card["library_name"] == "monai"
    assert "image-registration" in card["tags"]
    assert (folder / card["license_link"]).is_file()
    for readme, place in ((text, folder), ((folder / "docs/README.md").read_text(), folder / "docs")):
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", readme)
        assert links
        assert [link for link in links if not (place / link).is_file()] == []


def test_no_document_of_a_release_links_to_a_file_that_it_leaves_out(released):
    documents = sorted((released / NAME / "docs").rglob("*.md"))
    assert len(documents) > 8
    broken = {
        document.name: dead
        for document in documents
        for links in [re.findall(r"\]\((?!https?://)([^)#\s]+)", document.read_text())]
        if (dead := [link for link in links if not (document.parent / link).exists()])
    }
    assert broken == {}


def test_weights_that_their_description_does_not_name_are_not_published(tmp_path, monkeypatch, released):
    shutil.copytree(released / NAME, tmp_path / "root")
    (tmp_path / "root/models/model.pt").write_bytes(b"other weights")
    monkeypatch.setattr(release, "ROOT", tmp_path / "root")
    with pytest.raises(ValueError, match=r"does not name the SHA-256 of model\.pt"):
        release.build(tmp_path / "out")


def test_the_readme_installs_what_the_metadata_pins(bundle_root):
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())
    pins = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    pins |= {"numpy": metadata["numpy_version"]} | metadata["required_packages_version"]
    line = re.search(r"^pip install (monai==.*)$", (bundle_root / "docs/README.md").read_text(), re.M).group(1)
    assert dict(pin.split("==") for pin in line.split()) == pins


def test_the_readme_has_the_sections_of_the_zoos_template(bundle_root):
    text = (bundle_root / "docs/README.md").read_text()
    sections = [title.strip("* ") for title in re.findall(r"^#{1,4} (.+)$", text, re.M)]
    asked = ["Authors", "Tags", "Model Description", "Data", "Preprocessing", "Performance", "System Configuration"]
    asked += ["Limitations", "Citation Info", "References"]
    assert [title for title in sections if title in asked] == asked


def test_the_readme_has_a_quick_start_that_make_release_follows(released, monkeypatch):
    followed = []
    monkeypatch.setattr(release.subprocess, "run", lambda line, **options: followed.append((line, options)))
    release.try_out(archive(released))
    ((line, options),) = followed
    assert re.findall(r"^python -m [\w.]+ (\w+)(?: (\w+ing))?", line[-1], re.M) == [
        ("download", ""),
        ("phantom", ""),
        ("run", "inferring"),
        ("run", "training"),
    ]
    assert options["env"]["URL"] == archive(released).as_uri()
    assert "PYTHONPATH" not in options["env"]
