import pytest


@pytest.fixture(params=["output", "work"])
def places(request, tmp_path):
    """Output folder and work folder: staged in the output itself, or in the work folder."""
    (tmp_path / "work").mkdir()
    return tmp_path / "new" / "output", tmp_path / "work" if request.param == "work" else None
