"""The soak test: a capture under hours of faults, and a check that it lost nothing."""
