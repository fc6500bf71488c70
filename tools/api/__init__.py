"""The HTTP API, with its live stream, its downloads and the dashboard."""
