"""``make map`` where Docker builds, with a program in Docker's place that writes down what it is asked."""

import sys
from types import SimpleNamespace

import pytest
from container import context, image
from container.staging import NAME, version

BUILT = f"{NAME}-x64-workstation-dgpu-linux-amd64:{version()}"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The file of what Docker was asked; the packager builds nothing, and says that it has."""
    docker, asked = tmp_path / "bin" / "docker", tmp_path / "asked"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    monkeypatch.setattr(image, "_stage", lambda app: None)
    monkeypatch.setattr(image, "BASE_PYTHON", sys.version_info[:2])
    monkeypatch.setattr(context, "_adapt", lambda folder, edits: None)
    monkeypatch.setattr(context, "_package", _package)
    monkeypatch.setattr(context.BuilderBase, "_build_internal", lambda builder, dockerfile, platform: None)
    return asked


def _package(arguments, build):
    build(SimpleNamespace(_temp_dir="."), "Dockerfile", SimpleNamespace(tag=BUILT))


@pytest.mark.parametrize("with_archive", [False, True])
def test_an_image_that_docker_built_has_the_documented_name_and_is_saved_where_asked(
    asked, tmp_path, monkeypatch, capsys, with_archive
):
    archive = tmp_path / "image.tar"
    monkeypatch.setattr(sys, "argv", ["image", *(["--archive", str(archive)] if with_archive else [])])
    image.main()
    name = f"localhost/{NAME}:{version()}"
    saved = [f"save --output {archive} {name}"] if with_archive else []
    assert asked.read_text().splitlines()[2:] == [f"tag {BUILT} {name}", *saved]
    assert f"image: {name} in Docker's store" in capsys.readouterr().out
