import json
import re
from html.parser import HTMLParser

import pytest
from bundle.report import write_index
from bundle.report.page import as_json, asset
from tests.report.pairs import Pair

NASTY = '</script><script>alert("1")</script> & <b>'


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    Pair().write(path, notes=[NASTY], moving=f"/data/{NASTY.split('/')[-1]}", command=NASTY)
    return path.read_text()


def test_names_and_notes_cannot_end_a_script_or_start_one(text):
    page = Elements(text)
    assert len(page.scripts) == 3  # data, viewer, page
    data = json.loads(page.scripts[0])
    assert data["summary"]["notes"] == [NASTY]
    assert data["summary"]["command"] == NASTY
    assert "<b>" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)


def test_the_page_asks_for_nothing_from_outside(text):
    for tag, attributes in Elements(text).elements:
        for name in ("src", "href", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    (policy,) = [a["content"] for t, a in Elements(text).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "connect-src" not in policy
    assert "http" not in policy


def test_every_control_has_a_label_and_every_picture_words(text):
    elements = Elements(text).elements
    for n, (tag, attributes) in enumerate(elements):
        if tag == "input":
            assert elements[n - 1][0] in ("label", "kbd"), attributes
        if tag == "canvas":
            assert attributes.get("role") == "img" or attributes.get("aria-hidden") == "true"


def test_the_licence_of_what_is_inside_comes_with_the_page(text):
    assert "Copyright (c) 2021, Niivue" in text
    for package in ("fflate", "gl-matrix", "nifti-reader-js"):
        assert package in asset("viewer.LICENSE.txt")


def test_the_viewer_reads_no_zarr_and_is_small_enough_to_be_published():
    assert len(asset("viewer.js").encode()) < 1024 * 1024
    assert "blosc" not in asset("viewer.js")


def test_json_in_a_page_ends_no_script():
    assert "</" not in as_json({"a": "</script>"})
    assert json.loads(as_json({"a": "</script>"})) == {"a": "</script>"}


def test_the_index_lists_the_worst_first_and_what_failed_with_its_sentence(tmp_path):
    levels = {"fine": ("good", 0.9), "odd": ("look here", 0.8), "worse": ("look here", 0.7), "broken": ("failed", 0.2)}
    found = {
        name: {"judgement": {"level": level, "findings": []}, "foreground_similarity": value}
        for name, (level, value) in levels.items()
    }
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "report.html").write_text("")
    rows = [{"pair": name, "state": "registered", "error": ""} for name in levels]
    rows += [{"pair": "bad", "state": "failed", "error": f"no such file {NASTY}"}, {"pair": "later", "state": "to do"}]
    text = write_index(tmp_path, rows, found).read_text()
    entries = json.loads(Elements(text).scripts[0])
    assert [e["pair"] for e in entries] == ["bad", "broken", "worse", "odd", "fine", "later"]
    assert entries[0]["words"] == f"no such file {NASTY}"
    assert [e.get("report") for e in entries] == [None, None, None, "odd/report.html", None, None]
    assert "1 not registered, 1 failed, 2 look here, 1 good, 1 to do" in text
    assert list(tmp_path.glob(".writing*")) == []
