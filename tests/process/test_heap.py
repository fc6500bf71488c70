"""process/heap.py: what is large goes back to the system, whatever was given back before."""

import ctypes
import platform
import subprocess
import sys

import pytest

from process.child import ROOT

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or newer"
)

# How many bytes are mapped for pieces of their own, once a piece of 1 MB was given back and another is held.
CODE = """
import ctypes
names = "arena ordblks smblks hblks mapped usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
before = mallinfo2().mapped
piece = bytearray(1_000_000)
del piece
piece = bytearray(500_000)
print(mallinfo2().mapped - before)
"""


@pytest.mark.parametrize(("first", "is_mapped"), [("", False), ("from process import heap; heap.keep_small()", True)])
def test_what_is_large_is_mapped_by_itself(first: str, is_mapped: bool) -> None:
    """By itself glibc stops to do so once a large piece was given back."""
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{CODE}"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert (int(done.stdout) >= 500_000) is is_mapped
