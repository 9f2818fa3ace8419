"""Orthanc, the picture archive, on this machine's loopback for as long as the tests run."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "deploy_app"), str(ROOT / "tests" / "deploy_app")]
DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"  # the file: a wrong folder loads nothing and says nothing


def free_ports(count):
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Archive:
    """A running Orthanc, talked to by dcmtk's programs and by HTTP."""

    title = "TESTPACS"

    def __init__(self, http_port, dicom_port, receiver_port):
        self.url, self.dicom_port, self.receiver_port = f"http://127.0.0.1:{http_port}", dicom_port, receiver_port

    def configuration(self, folder):
        allowed = {f"DicomAlwaysAllow{service}": True for service in ("Echo", "Find", "Get", "Move", "Store")}
        return allowed | {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": int(self.url.rpartition(":")[2]),
            "DicomPort": self.dicom_port,
            "DicomAet": self.title,
            "DicomCheckCalledAet": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomModalities": {"receiver": ["RECEIVER", "127.0.0.1", self.receiver_port]},
            "Plugins": [DICOMWEB],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
        }

    def get(self, path, accept="application/json"):
        """The body of an HTTP answer."""
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def dicomweb(self, path):
        """Search or metadata by DICOMweb: a list of data sets in DICOM JSON."""
        return json.loads(self.get(f"/dicom-web/{path}", "application/dicom+json"))

    def scu(self, program, *arguments):
        """Run one of dcmtk's clients against the archive; what it said."""
        command = [program, "-aec", self.title, "127.0.0.1", str(self.dicom_port), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def wait(self, process, seconds=60):
        """Wait until the server answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert process.poll() is None, "Orthanc ended while it started"
            try:
                return self.get("/system")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        raise AssertionError(f"Orthanc does not answer after {seconds} s")


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    folder, server = tmp_path_factory.mktemp("orthanc"), Archive(*free_ports(3))
    settings = folder / "orthanc.json"
    settings.write_text(json.dumps(server.configuration(folder / "storage")))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(settings)], stdout=log, stderr=subprocess.STDOUT)
        try:
            server.wait(process)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=30)
