"""process/heap.py: what is large goes back to the system, and what one thread gives back is there for all."""

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


ASKED = "from process import heap; heap.keep_small()"


def printed(first: str, code: str) -> str:
    """What `code` prints in a new process, after `first`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{code}"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


@pytest.mark.parametrize(("first", "is_mapped"), [("", False), (ASKED, True)])
def test_what_is_large_is_mapped_by_itself(first: str, is_mapped: bool) -> None:
    """By itself glibc stops to do so once a large piece was given back."""
    assert (int(printed(first, CODE)) >= 500_000) is is_mapped


# malloc_info(3), while four threads hold something.
THREADS = """
import ctypes, threading
libc = ctypes.CDLL(None)
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
libc.fclose.argtypes = (ctypes.c_void_p,)
barrier = threading.Barrier(5)
def hold():
    piece = bytearray(5_000)
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads: thread.start()
barrier.wait()
file = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, file)
libc.fclose(file)
barrier.wait()
"""


@pytest.mark.parametrize(("first", "is_one"), [("", False), (ASKED, True)])
def test_threads_share_what_they_give_back(first: str, is_one: bool) -> None:
    """By itself glibc has a heap for each."""
    assert (printed(first, THREADS).count("<heap nr=") == 1) is is_one
