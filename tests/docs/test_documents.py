"""Documents: their links lead somewhere, and what they repeat is said once."""

import inspect
import json
import re
import shlex

import bundle
import pytest
import yaml
from bundle.__main__ import load

OF_DOCS = "README accuracy architecture benchmark conventions deploy paper paper_data register safety speed training"
OF_DOCS += " training_variants transforms"
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in OF_DOCS.split())]


def anchors(text):
    """Name the anchors that GitHub gives to the headings of a document."""
    titles = re.findall(r"^#{1,6} +(.+?)\s*$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_list_of_documents_is_complete(bundle_root):
    found = {path.relative_to(bundle_root).as_posix() for path in bundle_root.glob("docs/*.md")}
    assert found == {name for name in DOCUMENTS if name.startswith("docs/")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_and_its_heading(name, bundle_root):
    document = bundle_root / name
    broken = []
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert broken == []


def test_every_json_file_is_formatted_as_the_zoo_does(bundle_root):
    """As its pre-commit hook, pretty-format-json with an indent of 4 and the keys in their order."""
    folders = ("configs", "deploy_app", "docs", "models", "tests/data")
    files = [path for folder in folders for path in (bundle_root / folder).glob("*.json")]
    assert len(files) > 15
    for path in files:
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n", path


def test_the_readme_is_short(bundle_root):
    assert len((bundle_root / "README.md").read_text().splitlines()) < 120


def test_the_citation_is_of_this_version(bundle_root):
    citation = yaml.safe_load((bundle_root / "CITATION.cff").read_text())
    assert citation["version"] == bundle.__version__
    assert citation["version"] == json.loads((bundle_root / "configs/metadata.json").read_text())["version"]
    assert citation["preferred-citation"]["title"] in (bundle_root / "docs/paper.md").read_text()


def test_every_command_in_the_readmes_table_names_what_it_needs_and_nothing_unknown(bundle_root):
    lines = re.findall(r"\| `python -m bundle ([^`]*)` \|", (bundle_root / "README.md").read_text())
    assert len(lines) >= 3
    for line in lines:
        name, *words = shlex.split(line)
        command = load(name)
        function = command[words[0]] if isinstance(command, dict) else command
        given = {word[2:] for word in words if word.startswith("--")}
        parameters = inspect.signature(function).parameters
        needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
        assert needed <= given <= set(parameters), line
