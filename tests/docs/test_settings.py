"""What documents say of options, columns and files is what the configs, the code and the release hold."""

import json
import re
from fnmatch import fnmatch
from itertools import pairwise

import pytest
from bundle.pairs import COLUMNS
from monai.bundle.scripts import _get_fake_spatial_shape
from release import CONTENT, OF_THE_APPLICATION
from test_documents import MADE

PATTERNS = [pattern.replace("**/", "*") for pattern in CONTENT]


def options_in(text, heading):
    """Read the table below a heading: each key and, where it is a value of JSON, its default; else None."""
    table = text.split(f"{heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    found = {}
    for keys, defaults in re.findall(r"^\| (`.*?`) \| (.*?) \|", table, re.M):
        names, values = re.findall(r"`(\w+)`", keys), re.findall(r"\[[^\]]*\]|[^,\s][^,]*", defaults)
        for name, value in zip(names, values, strict=True):
            found[name] = json.loads(value) if re.match(r"[\d\[]", value) else None
    return found


def test_the_options_of_any_contrast_are_all_told_with_their_defaults(bundle_root):
    found = options_in((bundle_root / "docs/training.md").read_text(), "### Options of any contrast")
    config = json.loads((bundle_root / "configs/any_contrast.json").read_text())
    numbers = {key for key, value in config.items() if isinstance(value, int | float | list)} - {"run", "label_keys"}
    assert found == {key: config[key] for key in numbers}


def test_the_options_of_all_trainings_have_the_defaults_that_are_told(bundle_root):
    found = options_in((bundle_root / "docs/training.md").read_text(), "## Options")
    config = json.loads((bundle_root / "configs/train.json").read_text())
    assert set(found) <= set(config)
    told = {key: value for key, value in found.items() if value is not None and not isinstance(config[key], str)}
    assert len(told) > 15
    assert told == {key: config[key] for key in told}


@pytest.mark.parametrize(
    ("name", "heading"), [("README", "#### Register a list of pairs"), ("register", "## A list of pairs")]
)
def test_the_columns_of_a_list_of_pairs_are_all_told(bundle_root, name, heading):
    section = (bundle_root / f"docs/{name}.md").read_text().split(heading, 1)[1].split("\n#", 1)[0]
    assert {*COLUMNS} <= set(re.findall(r"`(\w+)`", section))


def test_the_sides_that_the_metadata_states_are_those_of_the_model_card(bundle_root):
    formats = json.loads((bundle_root / "configs/metadata.json").read_text())["network_data_format"]
    for shape in (formats["inputs"]["image"]["spatial_shape"], formats["outputs"]["pred"]["spatial_shape"]):
        assert [_get_fake_spatial_shape(shape, n=n) for n in (1, 2, 4, 5)] == [(side,) * 3 for side in (32, 48, 80, 96)]
    assert "multiples of 16, from 32 on" in (bundle_root / "docs/README.md").read_text()


def test_documents_in_the_zip_say_where_files_are_that_it_lacks(bundle_root):
    folders = "bundle|configs|container|deploy_app|docs|findings|models|tests|viewer"
    documents = [path for path in bundle_root.glob("docs/*.md") if f"docs/{path.name}" not in OF_THE_APPLICATION]
    astray = []
    for document in documents:
        paragraphs = ["", *document.read_text().split("\n\n")]
        for before, paragraph in pairwise(paragraphs):
            for named in re.findall(rf"(?<![\w/.])((?:{folders})/[\w./-]*\.\w+)", paragraph):
                in_zip = named not in OF_THE_APPLICATION and any(fnmatch(named, pattern) for pattern in PATTERNS)
                if not in_zip and named not in MADE and "repository" not in before + paragraph:
                    astray.append((document.name, named))
    assert astray == []
