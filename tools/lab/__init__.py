"""What the soak test, the benchmark and the tests stand on: servers, children, and the verdict on what was stored."""
