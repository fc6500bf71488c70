"""For the tests of TLS."""

import shutil

import pytest

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl, which makes the certificates")
