from bundle.io.tables import read_csv, write_csv


def test_the_columns_of_a_table_are_those_of_all_its_rows(tmp_path):
    write_csv(tmp_path / "table.csv", [{"pair": "a", "folding": 0.5}, {"pair": "b", "dice": 0.25, "folding": 1.0}])
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "pair,folding,dice",
        "a,0.500000,",
        "b,1.000000,0.250000",
    ]
    assert read_csv(tmp_path / "table.csv")[0]["dice"] == ""
