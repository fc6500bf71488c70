"""What the report says: where it reads, what can be asked, and its text, page and charts."""
