"""The soak test: a capture through hours of faults, and what it lost."""
