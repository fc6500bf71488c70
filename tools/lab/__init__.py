"""Shared by the soak test, the benchmark and the tests: servers, child processes, the verdict on the stored trades."""
