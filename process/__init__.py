"""What every program needs around its work: its log, its lock, its waits between tries, and its children."""
