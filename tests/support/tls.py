"""Certificates for the tests of TLS, made by openssl."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl, which makes the certificates")


def make_certificate(folder: Path, name: str) -> None:
    """A CA (`name`-ca.pem) and the certificate and key (`name`-cert.pem, `name`-key.pem) of a server at 127.0.0.1 that
    it signed."""
    ca, cert = folder / f"{name}-ca", folder / name
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run(
        [*new, "-x509", "-subj", f"/CN={name} CA", "-keyout", f"{ca}-key.pem", "-out", f"{ca}.pem"],
        check=True,
        capture_output=True,
    )
    signed = ["-CA", f"{ca}.pem", "-CAkey", f"{ca}-key.pem", "-x509", "-subj", f"/CN={name} server"]
    signed += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(
        [*new, *signed, "-keyout", f"{cert}-key.pem", "-out", f"{cert}-cert.pem"], check=True, capture_output=True
    )
