"""Documents: their links lead somewhere, and what they repeat is said once."""

import inspect
import json
import re
import shlex
import subprocess

import bundle
import pytest
import yaml
from bundle.__main__ import load

OF_DOCS = (
    "README accuracy architecture benchmark conventions deploy paper paper_data peers register report safety speed"
)
OF_DOCS += " training training_variants transforms"
MADE = {"models/model.ts"}  # by an export that docs/README.md shows
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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_of_the_repository_that_a_document_names_exists(name, bundle_root):
    folders = "bundle|configs|container|deploy_app|docs|findings|models|tests"
    named = re.findall(rf"(?<![\w/.])(?:{folders})/[\w./-]*\w", (bundle_root / name).read_text())
    assert [path for path in named if not (bundle_root / path).exists() and path not in MADE] == []


def test_every_json_file_is_formatted_as_the_zoo_does(bundle_root):
    """As its pre-commit hook, pretty-format-json with an indent of 4 and the keys in their order."""
    folders = ("configs", "deploy_app", "docs", "models", "tests/data")
    files = [path for folder in folders for path in (bundle_root / folder).glob("*.json")]
    assert len(files) > 15
    for path in files:
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n", path


def test_the_readme_is_short(bundle_root):
    assert len((bundle_root / "README.md").read_text().splitlines()) < 120


def test_make_clean_leaves_what_users_prepared_and_trained(bundle_root, tmp_path):
    ours, theirs = (".venv/bin", "build/map"), ("data/mine/images", "output/mine/models")
    for folder in (*ours, *theirs):
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(
        ["make", "-f", str(bundle_root / "Makefile"), "clean"], cwd=tmp_path, check=True, capture_output=True
    )
    assert [folder for folder in (*ours, *theirs) if (tmp_path / folder).exists()] == [*theirs]


@pytest.mark.parametrize("words", [[], ["help"]])
def test_make_alone_lists_its_recipes_and_makes_nothing(bundle_root, tmp_path, words):
    makefile = bundle_root / "Makefile"
    done = subprocess.run(["make", "-f", makefile, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
    recipes = set(re.search(r"^\.PHONY: (.+)$", makefile.read_text(), re.M)[1].split())
    assert set(re.findall(r"^  make (\S+) +\S", done.stdout, re.M)) == recipes - {"coverage-clean"}
    assert not list(tmp_path.iterdir())


def test_what_stands_beyond_an_image_is_told_as_files_and_the_application_have_it(bundle_root):
    padding = yaml.safe_load((bundle_root / "deploy_app/app.yaml").read_text())["panreg"]["padding"]
    text = (bundle_root / "docs/deploy.md").read_text().replace("−", "-")
    assert f"CT has {padding['CT']} and MR, like CT in other units, {padding['MR']}" in text
    for command in ("register", "apply"):  # no format of theirs declares a padding
        assert "padding" not in inspect.getdoc(load(command))


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
        assert needed <= given <= {parameter.rstrip("_") for parameter in parameters}, line


def missing_modules(names, package):
    return [name for name in names if not any(path.exists() for path in module_paths(name, package))]


def module_paths(name, package):
    path = package.joinpath(*name.split("."))
    return path.with_suffix(".py"), path / "__init__.py"


def test_the_architecture_names_modules_that_exist_and_leaves_none_out(bundle_root):
    text = (bundle_root / "docs/architecture.md").read_text()
    bundle_part, application_part = text.split("## The DICOM application")
    for part, package in ((bundle_part, bundle_root / "bundle"), (application_part, bundle_root / "deploy_app/panreg")):
        in_diagram = set(re.findall(r"<code>([\w.]+)</code>", part))
        in_table = {name for row in re.findall(r"^\| (`.*?) \|", part, re.M) for name in re.findall(r"`([\w.]+)`", row)}
        assert len(in_diagram) > 10
        assert missing_modules(in_diagram | in_table, package) == []
        modules = {path.name.removesuffix(".py") for path in package.iterdir() if not path.name.startswith("__")}
        assert in_table == modules - {"py.typed"}
    assert missing_modules(["nowhere"], bundle_root / "bundle") == ["nowhere"]
