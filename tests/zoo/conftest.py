import pytest
import release


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """Every form of the release, built once: the folder that holds them."""
    folder = tmp_path_factory.mktemp("release")
    release.build(folder)
    return folder
