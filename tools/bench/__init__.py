"""The benchmark: how fast the capture, the queries, the export and the API are on this machine."""
