"""Programs beside the capture and the report; all but the benchmark use the capture only as a process."""
