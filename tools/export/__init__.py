"""Stored trades as files: CSV, the archive's format, Parquet, and InfluxDB's line protocol."""
