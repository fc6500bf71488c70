"""What every program needs around its work: log, locks, waits between retries, child processes."""
