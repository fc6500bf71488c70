"""Certificates of servers that speak TLS, for a day or two, made by openssl."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str) -> None:
    """A CA (`name`-ca.pem) and the certificate and key (`name`-cert.pem, `name`-key.pem) of a server at 127.0.0.1 that
    it signed. Raises FileNotFoundError if there is no openssl."""
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


def server_options(folder: Path, name: str) -> list[str]:
    """What a database server of either family is started with to use them."""
    return [f"--ssl-{part}={folder / name}-{part}.pem" for part in ("ca", "cert", "key")]
