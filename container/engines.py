"""The programs that build and run images: Docker where it is complete, buildah without a daemon elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from container.staging import ROOT

__all__ = ["Buildah", "has_docker", "make_root_file_system", "name_with_docker"]

_PACKAGES = "python3,python3-pip,python3-venv,ca-certificates,curl,jq"
_LAST_WORDS_S = 5.0
_USER = {"UID": "1000", "GID": "1000", "UNAME": "holoscan"}
# root, user, then a source, its place and rw or ro for each mount, --, and the command
_LOCKED = """
set -e
ulimit -s 32768
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    mount -o "remount,bind,$3" "$root$2"
    shift 3
done
shift
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" "$@"
"""


def has_docker() -> bool:
    """Whether Docker can build: program, buildx and a daemon that answers."""
    if shutil.which("docker") is None:
        return False
    return all(_quiet("docker", *question) for question in (("buildx", "version"), ("info",)))


def name_with_docker(built: str, image: str, archive: Path | None) -> None:
    """Give an image in Docker's store our name, and write it to a file for ``docker load`` where one is asked for."""
    subprocess.run(["docker", "tag", built, image], check=True)
    if archive is not None:
        subprocess.run(["docker", "save", "--output", str(archive), image], check=True)


def make_root_file_system(archive: Path) -> None:
    """Make the base's root file system from the Debian archive, unless it is there already."""
    if archive.is_file():
        return
    part = archive.with_suffix(".part.tar")
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(part)], check=True
    )
    part.replace(archive)


class Buildah:
    """Buildah with a store of its own, in chroot isolation: no daemon, nothing but root in an ordinary container.

    Args:
        store: folder of images and working containers.
    """

    def __init__(self, store: Path = ROOT / "build" / "map" / "store") -> None:
        self._prefix = ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run"), "--storage-driver"]
        # overlay shares what images have in common; vfs copies whole trees, and works on every file system
        self._prefix.append("overlay" if _quiet(*self._prefix, "overlay", "info") else "vfs")
        # one container for all steps: a container a step costs more than it saves, and loses pip's upgrade of itself
        self._build = self.command("bud", "--isolation=chroot", "--layers=false", "--force-rm")

    def command(self, *arguments: str) -> list[str]:
        """Make the command line of one buildah command on this store."""
        return [*self._prefix, *arguments]

    def build_base(self, image: str, archive: Path) -> None:
        """Build the base image from a root file system."""
        recipe = 'FROM scratch\nADD {} /\nENV PATH={}\nCMD ["/bin/bash"]\n'
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        command = [*self._build, "-q", "-t", image, "-f", "-", str(archive.parent)]
        subprocess.run(command, input=recipe.format(archive.name, path), text=True, check=True)

    def build(self, image: str, context: Path, wheels: Path) -> None:
        """Build an image from the packager's adapted context and a folder of wheels that is mounted, not copied."""
        arguments = [text for name, value in _USER.items() for text in ("--build-arg", f"{name}={value}")]
        command = [*self._build, "--pull-never", "--format", "oci", "-t", image, *arguments]
        subprocess.run([*command, "-v", f"{wheels}:/wheels:ro", str(context)], check=True)

    def discard_unused(self) -> None:
        """Remove the containers that a killed build has left, and the images that a newer build has replaced."""
        for arguments in (("rm", "--all"), ("rmi", "--prune")):
            subprocess.run(self.command(*arguments), check=True, stdout=subprocess.DEVNULL)

    def save(self, image: str, archive: Path) -> None:
        """Write an image to a file for ``docker load``."""
        archive.unlink(missing_ok=True)
        subprocess.run(self.command("push", "-q", image, f"docker-archive:{archive}:{image}"), check=True)

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        """A working container, removed at the end."""
        name = self._ask("from", "--pull-never", image)
        try:
            yield name
        finally:
            subprocess.run(self.command("rm", name), check=True, stdout=subprocess.DEVNULL)

    def run(
        self, container: str, *command: str, mounts: Mapping[Path, str], seconds: float = 600.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command as the ``docker run`` of docs/deploy.md would, in namespaces of its own.

        That is user 1000, no network, a read-only root and a stack of 32 MB, which Holoscan asks for.

        Args:
            container: name of a working container.
            command: what to run; the entry point is ``/var/holoscan/tools``.
            mounts: folder of the host to place in the container, with ``:ro`` where it is only read.
            seconds: after which it is ended.

        Raises:
            TimeoutError: it had to be ended; the message holds what it printed, and where its Python threads were.
        """
        config = json.loads(self._ask("inspect", "--type", "container", container))["OCIv1"]["config"]
        volumes = [text for source, place in mounts.items() for text in (str(source), *_place_and_mode(place))]
        arguments = [self._ask("mount", container), f"{_USER['UID']}:{_USER['GID']}", *volumes, "--"]
        within = ["env", "-i", "-C", config["WorkingDir"], *config["Env"], "PYTHONFAULTHANDLER=1", *command]
        unshared = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", _LOCKED, "sh"]
        return _run_for([*unshared, *arguments, *within], seconds)

    def _ask(self, *arguments: str) -> str:
        asked = subprocess.run(self.command(*arguments), check=True, stdout=subprocess.PIPE, text=True, timeout=600)
        return asked.stdout.strip()


def _run_for(command: list[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, or end it and all its children."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # at which Python prints where its threads are
            time.sleep(_LAST_WORDS_S)
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            raise TimeoutError(f"{command[-1]} did not end within {seconds} s:\n{output}{errors}") from None
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _place_and_mode(place: str) -> tuple[str, str]:
    path, _, mode = place.partition(":")
    return path, mode or "rw"


def _quiet(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
