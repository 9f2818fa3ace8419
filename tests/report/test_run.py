import csv
import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
import torch
from bundle.__main__ import run
from bundle.io.tables import write_csv
from bundle.report.run import write_run_page
from torch.utils.tensorboard import SummaryWriter


class Page(HTMLParser):
    """The tables and pictures of a page."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.pictures, self.headings, self._cell = [], [], [], None
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag == "img":
            self.pictures.append(dict(attributes))
        self._cell = tag if tag in ("th", "td", "h2") else self._cell

    def handle_endtag(self, tag):
        self._cell = None if tag == self._cell else self._cell

    def handle_data(self, data):
        if self._cell == "h2":
            self.headings.append(data)
        elif self._cell:
            self.rows[-1].append(data)


@pytest.fixture
def training(tmp_path):
    """Two hundred steps, of which the last fifty were run again, and four validations with a picture each."""
    folder = tmp_path / "<my> run"
    for start, offset in ((0, 0.0), (150, 0.5)):
        with SummaryWriter(str(folder / "tensorboard")) as writer:
            for step in range(start, 200):
                writer.add_scalar("train_loss", 1 - step / 400 + offset, step)
            for epoch, dice in enumerate((0.5, 0.7, 0.9, 0.8), 1):
                writer.add_scalar("val_mean_dice", dice, epoch)
                writer.add_scalar("learning_rate", 0.1 / epoch, epoch)
                writer.add_image("warped", torch.rand(1, 8, 6), epoch)
    return folder


def test_a_training_becomes_a_table_of_curves_and_its_pictures(training):
    page = Page(write_run_page(training))
    assert page.headings == ["Training", "Pictures by epoch"]
    assert page.rows[0] == ["steps", "first", "last", "best", "at step"]
    rows = {row[0]: row[1:] for row in page.rows[1:]}
    # the loss is at its least before the part that was run again, whose values count
    assert rows["train_loss"] == ["200", "1", "1.003", "0.6275", "149"]
    assert rows["val_mean_dice"] == ["4", "0.5", "0.8", "0.9", "3"]
    assert rows["learning_rate"] == ["4", "0.1", "0.025", "–", "–"]  # a rate has no best
    curves, pictures = page.pictures[:3], page.pictures[3:]
    assert "the line is the mean of 10 steps" in curves[0]["alt"]
    assert [re.search(r"epoch (\d)", picture["alt"])[1] for picture in pictures] == ["1", "2", "3", "4"]
    assert all(b64decode(p["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG") for p in page.pictures)
    assert "<title>&lt;my&gt; run</title>" in page.text


@pytest.fixture
def comparison(tmp_path):
    rows = [
        {
            "pair": f"p{i}",
            "method": method,
            "dsc": "" if i == 7 else f"{best - 0.01 * i:.3f}",
            "error": "a < b" * (i == 7),
        }
        for method, best in (("syn", 0.6), ("pan", 0.7))
        for i in range(8)
    ]
    summary = [
        {"method": "syn", "pairs": 7, "dsc_mean": 0.57, "dsc_sd": 0.02, "wilcoxon_p": "nan"},
        {"method": "pan", "pairs": 7, "dsc_mean": 0.671234567, "dsc_sd": "", "wilcoxon_p": 0.0156},
    ]
    for name, table in (("pairs", rows), ("summary", summary)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
    return tmp_path


def test_a_benchmark_becomes_its_summary_a_box_plot_its_worst_pairs_and_what_failed(comparison):
    (comparison / "boxplot.png").write_bytes(b"\x89PNG of the regions")
    page = Page(write_run_page(comparison, comparison / "page.html"))
    assert page.headings == ["Summary", "Overlap of the pairs", "Worst 5 pairs of each method", "Failed"]
    assert page.rows[:3] == [
        ["method", "pairs", "dsc", "wilcoxon p"],
        ["syn", "7", "0.57 ± 0.02", "–"],
        ["pan", "7", "0.6712", "0.0156"],
    ]
    worst = page.rows[4:14]
    assert worst[0] == ["syn", "p6", "0.5400"]
    assert [row[1] for row in worst] == ["p6", "p5", "p4", "p3", "p2"] * 2
    assert page.rows[15:] == [["p7", "syn", "a < b"], ["p7", "pan", "a < b"]]
    assert "syn: 0.540 to 0.600 over 7 pairs; pan: 0.640 to 0.700 over 7 pairs" in page.pictures[0]["alt"]
    assert b64decode(page.pictures[1]["src"].partition(",")[2]) == b"\x89PNG of the regions"


def test_pairs_without_any_overlap_are_the_worst(tmp_path):
    cells = [f"p{i},pan,{dsc}" for i, dsc in enumerate(("0.5", "0.000000", "", "0.25", "nan", "0"))]
    (tmp_path / "pairs.csv").write_text("\n".join(["pair,method,dsc", *cells]) + "\n")
    page = Page(write_run_page(tmp_path))
    assert [row[1:] for row in page.rows[1:]] == [
        ["p1", "0.0000"],
        ["p5", "0.0000"],
        ["p3", "0.2500"],
        ["p0", "0.5000"],
    ]


def evaluation(folder, measure):
    """What an evaluation leaves of three pairs, one of them without what is measured, and of one that failed."""
    rows = [{"pair": f"p{i}", "moving": "m", "fixed": "f", measure: value} for i, value in enumerate((0.8, 0.0, 0.4))]
    rows += [{"pair": "p3", "moving": "m", "fixed": "f", measure: float("nan")}]
    rows += [{"pair": "p4", "moving": "m", "fixed": "f", "error": "no image"}]
    write_csv(folder / "pairs.csv", rows)
    write_csv(folder / "summary.csv", [{"measure": measure, "mean": 0.4, "sd": 0.33, "pairs": 3}])
    return Page(write_run_page(folder))


@pytest.mark.parametrize(
    ("measure", "title", "name"), [("dice_after", "Overlap", "DSC"), ("similarity_after", "Similarity", "similarity")]
)
def test_an_evaluation_becomes_its_summary_its_spread_and_its_worst_pairs(tmp_path, measure, title, name):
    page = evaluation(tmp_path, measure)
    assert page.headings == ["Summary", f"{title} of the pairs", "Worst 5 pairs of each method", "Failed"]
    assert page.rows[:2] == [["measure", "mean", "sd", "pairs"], [measure, "0.4", "0.33", "3"]]
    assert page.rows[2:6] == [
        ["method", "pair", name],
        ["the network", "p1", "0.0000"],
        ["the network", "p2", "0.4000"],
        ["the network", "p0", "0.8000"],
    ]
    assert page.rows[-1] == ["p4", "the network", "no image"]
    assert f"{name} by method. the network: 0.000 to 0.800 over 3 pairs" in page.pictures[0]["alt"]


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("batch.csv", "holds a batch, whose page is index.html there"),
        ("equal_terms.csv", "holds networks trained on equal terms, .* name a network's folder in it"),
        ("curve.csv", "holds curves of methods, whose figure is curve.png"),
        ("registration.json", "holds one registration, whose page is report.html"),
        ("rescans.csv", "holds no run: .* tensorboard/ of a training, .* 'benchmark accuracy'; name a folder"),
    ],
)
def test_what_other_commands_left_is_refused_with_what_to_open(tmp_path, file, sentence):
    (tmp_path / file).touch()
    with pytest.raises(ValueError, match=sentence):
        write_run_page(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("kind", ["training", "comparison"])
def test_a_page_asks_for_nothing_and_runs_nothing(request, kind):
    text = write_run_page(request.getfixturevalue(kind)).read_text(encoding="utf-8")
    assert "<script" not in text
    assert not re.search(r"""(?:src|href)="(?!data:)""", text)
    assert "default-src 'none'" in text


def test_the_command_says_where_the_page_is(comparison, capsys):
    run("report", ["--run", str(comparison)])
    assert capsys.readouterr().out == f"page: {comparison / 'run.html'}\n"
    assert (comparison / "run.html").is_file()


@pytest.mark.parametrize("name", ["", "missing"])
def test_what_is_no_run_is_refused_and_nothing_written(tmp_path, name):
    with pytest.raises(ValueError, match="holds no run" if not name else "is no folder: name the --output_dir"):
        write_run_page(tmp_path / name)
    assert not list(tmp_path.iterdir())
