"""A copy of the trades in PostgreSQL, kept up to date."""
