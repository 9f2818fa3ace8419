import re
from pathlib import Path

import pytest
import yaml
from application import ROOT
from panreg.failures import Code, Failure
from panreg.settings import PairSettings, QualityGate, Settings, digest, load_settings, variables

APP_YAML = ROOT / "deploy_app" / "app.yaml"


def load(folder, text="", **environ):
    path = Path(folder) / "app.yaml"
    path.write_text("application: {title: x}\npanreg:\n" + text)
    return load_settings(path, environ)


def refused(folder, text="", **environ):
    with pytest.raises(Failure) as info:
        load(folder, text, **environ)
    assert info.value.code is Code.E_INTERNAL
    return info.value.message


def test_the_shipped_file_says_the_defaults_and_names_every_setting():
    assert load_settings(APP_YAML, {}) == Settings()
    text = APP_YAML.read_text()
    for address in variables().values():
        assert f"{address[-1]}:" in text


def test_the_shipped_file_sets_no_limit_of_quality_and_its_comments_say_the_defaults(tmp_path):
    assert load_settings(APP_YAML, {}).quality.model_fields_set == {"on_failure"}
    path = tmp_path / "app.yaml"
    path.write_text(re.sub("^    # ((min|max)_)", r"    \1", APP_YAML.read_text(), flags=re.MULTILINE))
    assert load_settings(path, {}) == Settings()
    assert load_settings(path, {}).quality.model_fields_set == QualityGate.model_fields.keys()


def test_the_commented_examples_of_the_shipped_file_are_valid(tmp_path):
    lines = APP_YAML.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if "# fixed_series_uid" in line)
    end = next(n for n, line in enumerate(lines) if "order: later_is_fixed" in line)
    examples = "\n".join(line.replace("# ", "", 1) for line in lines[start:end])
    pair = load(tmp_path, f"  pair:\n{examples}\n").pair
    assert pair.fixed_series_uid == "1.2.3"
    assert pair.moving_path == "moving"
    assert pair.series["fixed"]["ImageType"] == ["ORIGINAL", "!NORM"]
    assert pair.series["moving"] == {"SeriesNumber": 5}


def test_the_shipped_file_has_what_the_packager_needs():
    document = yaml.safe_load(APP_YAML.read_text())
    assert document["application"]["title"]
    assert isinstance(document["application"]["version"], str)
    assert document["resources"]
    assert document["application"]["input-formats"]
    assert document["application"]["output-formats"]


def test_without_a_file_or_a_section_the_defaults_hold(tmp_path):
    assert load_settings(None, {"PATH": "/bin"}) == load(tmp_path) == Settings()


def test_the_file_changes_only_what_it_names(tmp_path):
    settings = load(tmp_path, "  quality: {on_failure: fail, max_displacement_mm: 40}\n  padding: {CT: -2000}\n")
    assert settings.quality == Settings().quality.model_copy(update={"on_failure": "fail", "max_displacement_mm": 40.0})
    assert settings.padding == {"CT": -2000, "MR": 0}
    assert settings.model_copy(update={"quality": Settings().quality, "padding": Settings().padding}) == Settings()


def test_the_environment_overrides_the_file(tmp_path):
    settings = load(
        tmp_path,
        "  pair: {min_slices: 20, order: prior_is_fixed}\n",
        **{"PANREG_MIN_SLICES": "24", "PANREG_FIXED_SERIES_UID": "1.2", "PANREG_PATIENT_CHECK": "allow_unidentified"},
        **{"PANREG_QUALITY_ON_FAILURE": "fail", "PANREG_DEFORMABLE_TWO_ITEMS": "true", "PANREG_PADDING_MR": "-5"},
        **{"PANREG_SERIES_NUMBERS_DSRO": "11", "PANREG_LIMITS_FILES": "7", "PANREG_AFFINE": "rigid"},
    )
    assert settings.pair == PairSettings(
        min_slices=24, order="prior_is_fixed", fixed_series_uid="1.2", patient_check="allow_unidentified"
    )
    assert settings.quality.on_failure == "fail"
    assert settings.deformable.two_items is True
    assert settings.padding == {"CT": -1024, "MR": -5}
    assert settings.series_numbers["dsro"] == 11
    assert settings.limits.files == 7
    assert settings.affine == "rigid"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("  pairs: {}\n", "pairs"),
        ("  pair: {fixed_uid: '1.2'}\n", "pair.fixed_uid"),
        ("  pair: {fixed_series_uid: 1.2}\n", "pair.fixed_series_uid"),
        ("  pair: [1]\n", "pair"),
        ("  pair: {order: newest}\n", "pair.order"),
        ("  pair: {min_slices: 2}\n", "pair.min_slices"),
        ("  pair: {min_slices: 16.5}\n", "pair.min_slices"),
        ("  pair: {min_slices: true}\n", "pair.min_slices"),
        ("  pair: {allow_cross_modality: 1}\n", "pair.allow_cross_modality"),
        ("  pair: {series: {both: {Modality: MR}}}\n", "pair.series"),
        ("  pair: {series: {fixed: {}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {SeriesDescripton: T1}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {OtherPatientIDsSequence: T1}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {SeriesDescription: '['}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {EchoTime: {least: 2}}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {EchoTime: {min: a}}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {ImageType: ['!']}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {SliceThickness: {min: 3, max: 1}}}}\n", "pair.series.fixed"),
        ("  pair: {series: {fixed: {ImageType: [NORM, ORIGINAL, '!norm']}}}\n", "pair.series.fixed"),
        ("  quality: {on_failure: ignore}\n", "quality.on_failure"),
        ("  quality: {max_folding_percent: .nan}\n", "quality.max_folding_percent"),
        ("  quality: {max_displacement_mm: .inf}\n", "quality.max_displacement_mm"),
        ("  deformable: {spacing_mm: 0}\n", "deformable.spacing_mm"),
        ("  padding: {PT: 0}\n", "padding.PT"),
        ("  padding: {CT: -40000}\n", "padding.CT"),
        ("  deformable: {spacing_mm: 0.001}\n", "deformable.spacing_mm"),
        ("  series_numbers: {dsro: 902}\n", "series_numbers.dsro"),
        ("  label: ''\n", "label"),
        (f"  label: {'x' * 65}\n", "label"),
        ("  affine: bspline\n", "affine"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_name(tmp_path, text, named):
    assert f" {named} " in refused(tmp_path, text)


@pytest.mark.parametrize("name", ["PANREG_FIXD_SERIES_UID", "PANREG_PAIR_ORDER", "PANREG_SERIES", "PANREG_"])
@pytest.mark.hazard("the wrong image moves")
def test_a_misspelt_variable_is_refused(tmp_path, name):
    assert f" {name} " in refused(tmp_path, **{name: "1.2.3"})


@pytest.mark.parametrize(
    ("text", "environ", "meant"),
    [
        ("", {"PANREG_FIXD_SERIES_UID": "1"}, "PANREG_FIXED_SERIES_UID"),
        ("", {"PANREG_QUALITY_MIN_SIMILARTY": "1"}, "PANREG_QUALITY_MIN_SIMILARITY"),
        ("  pairs: {}\n", {}, "pair"),
        ("  pair: {fixed_uid: '1.2'}\n", {}, "fixed_series_uid"),
        ("  padding: {PT: 0}\n", {}, None),
        ("", {"PANREG_X": "1"}, None),
    ],
)
def test_a_refusal_suggests_the_name_that_was_probably_meant(tmp_path, text, environ, meant):
    message = refused(tmp_path, text, **environ)
    assert f"(did you mean {meant}?)" in message if meant else "did you mean" not in message


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_is_a_lost_choice_and_refused(tmp_path, value):
    assert "pair.fixed_series_uid" in refused(tmp_path, PANREG_FIXED_SERIES_UID=value)


def test_a_refusal_does_not_repeat_the_value(tmp_path):
    assert "Doe" not in refused(tmp_path, "  affine: Doe^Jane\n")
    assert "Doe" not in refused(tmp_path, PANREG_MIN_SLICES="Doe^Jane")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  affine: bspline\n", "affine takes auto or none or center or rigid or affine: correct app.yaml"),
        ("  affine: 1\n", "affine takes a text that is not empty (in quotes, where it looks like a number): correct"),
        ("  pair: {fixed_series_uid: }\n", "pair.fixed_series_uid takes a text that is not empty (in quotes, where"),
        ("  pair: {min_slices: 2}\n", "takes a whole number from 3 to 100000: correct app.yaml or the environment ("),
        ("  limits: {files: 0}\n", "limits.files takes a whole number above 0: correct app.yaml or the environment ("),
        ("  quality: {max_log_jacobian_sd: 0}\n", "takes a number above 0: correct app.yaml or the environment"),
        ("  dates: 1\n", "dates takes true or false: correct app.yaml or the environment (PANREG_DATES)."),
        ("  quality:\n", "quality takes a section of settings: correct app.yaml or the environment (PANREG_…)."),
        ("  padding: 3\n", "padding takes a section of settings: correct app.yaml or the environment (PANREG_…)."),
        ("  pair: {series: {both: {}}}\n", "pair.series takes a rule for fixed, for moving, or for both: correct"),
        ("  pair: {series: {fixed: {EchoTime: {a: 2}}}}\n", "takes a regular expression, a list of texts, {min, max}"),
        (
            "  pair: {series: {moving: {EchoTime: {min: 3, max: 1}}}}\n",
            "pair.series.moving takes something that a series can meet for EchoTime (min up to max; a text or !text, "
            "not both): correct app.yaml",
        ),
        ("  series_numbers: {dsro: 902}\n", "series_numbers.dsro takes another number than series_numbers.registered"),
        (
            "  deformable: {spacing_mm: 0.4}\n",
            "deformable.spacing_mm takes a number from 0.5 to 50: correct app.yaml or",
        ),
        ("  label: 'a\\b'\n", "label takes at most 64 printable characters and no backslash: correct app.yaml or"),
    ],
)
def test_a_refusal_says_what_the_setting_takes(tmp_path, text, sentence):
    assert sentence in refused(tmp_path, text)


@pytest.mark.parametrize(("name", "other"), [("dsro", "registered"), ("registered", "dsro")])
def test_a_series_number_that_is_another_s_is_refused_by_both_names(tmp_path, name, other):
    number = {"dsro": "902", "registered": "901"}[name]
    message = refused(tmp_path, "", **{f"PANREG_SERIES_NUMBERS_{name.upper()}": number})
    assert message == (
        f"The setting series_numbers.{name} takes another number than series_numbers.{other} "
        f"(PANREG_SERIES_NUMBERS_{other.upper()}): correct app.yaml or the environment "
        f"(PANREG_SERIES_NUMBERS_{name.upper()})."
    )


def test_a_number_that_clashes_in_the_file_may_be_corrected_by_the_environment(tmp_path):
    settings = load(tmp_path, "  series_numbers: {dsro: 902}\n", PANREG_SERIES_NUMBERS_REGISTERED="903")
    assert (settings.series_numbers["dsro"], settings.series_numbers["registered"]) == (902, 903)


def test_a_wrong_value_in_the_file_is_refused_even_where_the_environment_overrides_it(tmp_path):
    assert " affine " in refused(tmp_path, "  affine: bspline\n", PANREG_AFFINE="rigid")


def test_a_range_may_be_a_single_number(tmp_path):
    rules = load(tmp_path, "  pair: {series: {fixed: {EchoTime: {min: 3, max: 3}}}}\n").pair.series
    assert rules == {"fixed": {"EchoTime": {"min": 3, "max": 3}}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Panreg: {affine: none}\n", "Panreg is not known (did you mean panreg?): correct app.yaml or"),
        ("application: {}\npan_reg: {affine: none}\n", "pan_reg is not known (did you mean panreg?): correct app.yaml"),
        ("affine: none\n", "affine stands outside the section panreg: correct app.yaml or the environment (PANREG_AFF"),
        ("panreg: {affine: none}\nquality: {on_failure: fail}\n", "quality stands outside the section panreg: correct"),
        ("panreg: {}\nsite: 1\n", "The setting site is not known: correct app.yaml"),
        ("application: {}\nresources: {}\n", "panreg is the section of the settings, which the file lacks: correct"),
        ("{}\n", "panreg is the section of the settings, which the file lacks: correct app.yaml"),
        ("panreg: []\n", "panreg takes a section of settings: correct app.yaml or the environment (PANREG_…)."),
        ("panreg: ''\n", "panreg takes a section of settings: correct app.yaml"),
        ("panreg: false\n", "panreg takes a section of settings: correct app.yaml"),
        ("panreg: {affine: none}\npanreg: {page: false}\n", "panreg stands twice in one section (lines 1 and 2): corr"),
        ("panreg:\n  affine: none\n  page: true\n  'affine': rigid\n", "affine stands twice in one section (lines 2 "),
        ("panreg:\n  padding: {CT: 1, MR: 0, CT: 2}\n", "CT stands twice in one section (lines 2 and 2): correct"),
    ],
)
@pytest.mark.hazard("the wrong image moves")
def test_settings_that_would_be_passed_over_are_refused(tmp_path, text, sentence):
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(Failure) as info:
        load_settings(tmp_path / "app.yaml", {})
    assert info.value.code is Code.E_INTERNAL
    assert sentence in info.value.message


def test_sections_of_the_packager_and_the_engine_are_left_to_them(tmp_path):
    text = "application: {title: x}\nresources: {cpu: 1}\nextensions: [a.so]\npanreg: {affine: none}\n"
    (tmp_path / "app.yaml").write_text(text)
    assert load_settings(tmp_path / "app.yaml", {}).affine == "none"


def test_a_section_that_others_are_merged_into_names_no_key_twice(tmp_path):
    text = "  quality: &gate {on_failure: fail, max_stretch: 1.1}\n  deformable: {}\n"
    text += "resources: {again: {<<: *gate, max_stretch: 1.3}, more: {<<: *gate, on_failure: flag}}\n"
    assert load(tmp_path, text).quality.max_stretch == 1.1


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", "", "panreg: {label: 2026-13-45}"])
def test_a_file_that_is_no_settings_file_is_refused(tmp_path, text):
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(Failure) as info:
        load_settings(tmp_path / "app.yaml", {})
    assert info.value.code is Code.E_INTERNAL
    with pytest.raises(Failure):
        load_settings(tmp_path / "none.yaml", {})


def test_the_digest_sees_every_setting_the_device_and_the_overrides():
    values = {str: "x", type(None): "x", bool: None, int: 77, float: 7.5}
    digests = {digest(Settings(), "cpu"), digest(Settings(), "cuda"), digest(Settings(), "cpu", {"passes": 2})}
    assert len(digests) == 3
    for address in variables().values():
        digests.add(digest(changed(Settings(), address, values), "cpu"))
    assert len(digests) == 3 + len(variables())
    assert all(len(d) == 64 for d in digests)


def changed(section, address, values):
    name, *rest = address
    old = section[name] if isinstance(section, dict) else getattr(section, name)
    new = changed(old, rest, values) if rest else (not old if isinstance(old, bool) else values[type(old)])
    return section | {name: new} if isinstance(section, dict) else section.model_copy(update={name: new})


def test_the_digest_sees_a_limit_that_is_set_to_its_default(tmp_path):
    assert digest(load(tmp_path, PANREG_QUALITY_MIN_SIMILARITY="0.7"), "cpu") != digest(load(tmp_path), "cpu")


def test_the_digest_does_not_depend_on_the_order_or_the_source_of_settings(tmp_path):
    one = load(tmp_path, "  padding: {MR: 1, CT: 2}\n  dates: true\n")
    other = load(tmp_path, "", PANREG_DATES="true", PANREG_PADDING_CT="2", PANREG_PADDING_MR="1")
    assert digest(one, "cpu") == digest(other, "cpu") != digest(Settings(), "cpu")
