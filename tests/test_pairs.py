"""Lists of pairs as spreadsheets, scripts and people write them."""

import json
from pathlib import Path

import pytest
from bundle.pairs import draw_pairs, read_pairs


def listed(tmp_path, content, name="pairs.csv"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_pairs(str(tmp_path / name))


def plain(tmp_path, name="p"):
    return [{"moving": str(tmp_path / "m.nii.gz"), "fixed": str(tmp_path / "f.nii.gz"), "name": name}]


@pytest.mark.parametrize(
    "content",
    [
        "moving,fixed,name\nm.nii.gz,f.nii.gz,p\n",
        "\ufeffmoving,fixed,name\r\nm.nii.gz,f.nii.gz,p\r\n",
        "moving;fixed;name\nm.nii.gz;f.nii.gz;p\n",
        "sep=;\nmoving;fixed;name\nm.nii.gz;f.nii.gz;p\n",
        "moving\tfixed\tname\rm.nii.gz\tf.nii.gz\tp\r",
        "moving\tfixed\tname\nm.nii.gz\tf.nii.gz\tp\n".encode("utf-16"),
        "moving, fixed, name\nm.nii.gz , f.nii.gz,\tp\n",
        '"moving", "fixed", "name"\n"m.nii.gz", "f.nii.gz", "p"',
        "\n\nmoving,fixed,name,,\n,,,,\nm.nii.gz,f.nii.gz,p,,\n\n,,,,\n",
        "name,moving_label,fixed,moving\np,,f.nii.gz,m.nii.gz\n",
    ],
)
def test_a_list_is_read_however_it_was_saved(tmp_path, content):
    assert listed(tmp_path, content) == plain(tmp_path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_list_may_be_json(tmp_path, mark):
    rows = [{"moving": "m.nii.gz", "fixed": "f.nii.gz", "name": "p", "moving_label": None, "fixed_mask": ""}]
    assert listed(tmp_path, mark + json.dumps(rows).encode(), "pairs.JSON") == plain(tmp_path)


def test_a_tilde_is_the_home_folder_and_text_in_quotes_may_hold_a_comma(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    (pair,) = listed(tmp_path, 'moving,fixed,initial_transform\n~/m.nii,"a, b.nii",~no-such-user/t.h5\n')
    assert pair["moving"] == "/home/someone/m.nii"
    assert pair["fixed"] == str(tmp_path / "a, b.nii")
    assert pair["initial_transform"] == str(tmp_path / "~no-such-user/t.h5")


@pytest.mark.parametrize(("name", "folder"), [("sub-01/ses-2", "sub-01/ses-2"), ("a//./b/", "a/b"), ("a..b", "a..b")])
def test_a_name_with_slashes_is_a_folder_within_a_folder(tmp_path, name, folder):
    assert listed(tmp_path, f"moving,fixed,name\nm.nii.gz,f.nii.gz,{name}\n") == plain(tmp_path, folder)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/x", "a/../../b", "a/..", ".", "~/x", "..\\x", "a\tb", "a\u2028b"])
def test_a_name_cannot_lead_out_of_the_output_folder(tmp_path, name):
    content = json.dumps([{"moving": "m.nii.gz", "fixed": "f.nii.gz", "name": name}])
    with pytest.raises(ValueError, match=r"calls a pair .*, which is no folder within the output folder: rename it"):
        listed(tmp_path, content, "pairs.json")


@pytest.mark.parametrize(
    "name", [".hidden", "a/.registration_x", "p.error.txt", "batch.csv", "index.html", "a/Index.HTML"]
)
def test_a_name_cannot_be_one_of_the_batchs_own_files(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"no part of a name may start with '.' or end in batch\.csv, index\.html, \.error\.txt"
    ):
        listed(tmp_path, f"moving,fixed,name\nm.nii.gz,f.nii.gz,{name}\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("moving,fixed,movinglabel\nm,f,l\n", "has 'movinglabel', which is not read: did you mean 'moving_label'"),
        ("moving,fixed,fixed_lable\nm,f,l\n", "did you mean 'fixed_label'"),
        ("Moving,fixed\nm,f\n", "has 'Moving', which is not read: did you mean 'moving'"),
        ("moving,fixed,init_transform\nm,f,t\n", "did you mean 'initial_transform'"),
        ("moving,fixed,label\nm,f,l\n", "has 'label', which is not read: the columns are moving, fixed, moving_label"),
        ("moving,fixed,moving\nm,f,x\n", "has two columns 'moving'"),
        ("moving,target\nm,f\n", "has no column 'fixed': its first line names moving, target"),
        ("m.nii,f.nii\n", "has no column 'moving': its first line names m.nii, f.nii"),
        ("moving,fixed\n", "lists no pairs"),
        ("moving,fixed\n\n,\n", "lists no pairs"),
        ("", "is empty"),
        ("moving,fixed\nm,f\n\nm,\n", "Row 4 of .* names no fixed image"),
        ("moving,fixed\nm,f,x\n", "Row 2 of .* has more cells than the first"),
        ("moving,fixed,name\nm,f,a/b\nm,g,a//b\n", "Two pairs of .* are called 'a/b'"),
        ("moving,fixed,name\nm,f,m_to_g\nm,g,\n", "Two pairs of .* are called 'm_to_g'"),
        (b"moving,fixed\nm\xfcller,f\n", "is not in UTF-8: save it as 'CSV UTF-8'"),
        ('moving,fixed\n"m,f\n', "cannot be read as CSV"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_in_one_sentence(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        listed(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "pairs.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "lists no pairs"),
        ('{"pairs": []}', "is no list of pairs"),
        ("[1]", "is no list of pairs"),
        ('[{"moving": "m", "fixed": 7}]', "Row 1 of .* needs a moving and a fixed image, paths as text"),
        ('[{"moving": "m", "fixed": "f", "moving_lable": "l"}]', "did you mean 'moving_label'"),
        ('[{"moving": "m"}]', "Row 1 of .* names no fixed image"),
    ],
)
def test_a_json_list_of_another_form_is_refused_in_one_sentence(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        listed(tmp_path, content, "pairs.json")


@pytest.mark.parametrize("letter", ["a", "é", "脳"])
def test_names_that_no_folder_could_have_end_in_a_digest_the_same_in_every_draw(tmp_path, letter):
    long = letter * (240 // len(letter.encode()))
    images = [{"image": f"/d/{long}{n}.nii.gz"} for n in range(3)]
    pairs = draw_pairs(images)
    names = [pair["name"] for pair in pairs]
    assert len({*names}) == 6
    for name in names:
        assert name.startswith(letter * 60)
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.error.txt").touch()
    drawn = {(pair["moving"], pair["fixed"]): pair["name"] for pair in draw_pairs(images[:2])}
    assert drawn.items() <= {(pair["moving"], pair["fixed"]): pair["name"] for pair in pairs}.items()


@pytest.mark.parametrize(
    ("last", "names"), [("b_2", ["a_to_b", "a_to_b_3", "a_to_b_2"]), ("b", ["a_to_b", "a_to_b_2", "a_to_b_3"])]
)
def test_pairs_listed_twice_are_numbered_past_the_names_of_others(last, names):
    pairs = [{"moving": "a.nii", "fixed": f"{fixed}.nii"} for fixed in ("b", "b", last)]
    assert [pair["name"] for pair in draw_pairs(pairs)] == names


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (["m,f,one", "m,f,"], ["one", "m_to_f"]),
        (["m,f,", "m,f,one", "m,f,"], ["m_to_f", "one", "m_to_f_2"]),
        (["m,f,m_to_f", "m,f,"], ["m_to_f", "m_to_f_2"]),
        (["m,f,m_to_f_2", "m,f,", "m,f,"], ["m_to_f_2", "m_to_f", "m_to_f_3"]),
    ],
)
def test_pairs_without_a_name_are_numbered_among_themselves(tmp_path, rows, names):
    found = listed(tmp_path, "\n".join(["moving,fixed,name", *rows]))
    assert [pair["name"] for pair in found] == names


def test_a_file_has_one_name_however_its_path_is_spelt(tmp_path):
    folder = tmp_path / "sub dir"
    folder.mkdir()
    spelt = ["sub dir/m.nii.gz,f.nii.gz", f"{folder}/m.nii.gz,./f.nii.gz"]
    spelt.append("./sub dir/../sub dir/m.nii.gz,sub dir/../f.nii.gz")
    found = [[pair["name"] for pair in listed(tmp_path, "\n".join(["moving,fixed", *spelt[:n]]))] for n in (1, 2, 3)]
    assert found == [["m_to_f"], ["m_to_f", "m_to_f_2"], ["m_to_f", "m_to_f_2", "m_to_f_3"]]
    both = listed(tmp_path, "\n".join(["moving,fixed", spelt[0], "./sub dir/m.nii.gz,other/f.nii.gz"]))
    assert [pair["name"] for pair in both] == [f"m_to_{tmp_path.name}_f", "m_to_other_f"]


def test_a_path_that_itk_cannot_take_is_refused_before_any_pair_is_registered(tmp_path):
    folder = tmp_path / "f\udcffolder"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"The path \(.*f\\udcffolder/m\.nii\.gz\) is not in UTF-8"):
        listed(folder, "moving,fixed\nm.nii.gz,f.nii.gz\n")
    assert listed(folder, f"moving,fixed\n{tmp_path}/m.nii.gz,{tmp_path}/f.nii.gz\n")[0]["name"] == "m_to_f"


def test_other_columns_are_named_and_left_alone(tmp_path, capsys):
    (pair,) = listed(tmp_path, "moving,fixed,age\nm.nii.gz,f.nii.gz,61\n")
    assert Path(pair["moving"]).name == "m.nii.gz"
    assert capsys.readouterr().out == f"{tmp_path / 'pairs.csv'}: not read: age\n"


@pytest.mark.parametrize("count", [0, -1, 2.0, "all", True])
def test_a_number_of_pairs_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match="The number of pairs is a whole number from 1 up"):
        draw_pairs([{"moving": "m", "fixed": "f"}], count)
