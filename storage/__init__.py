"""Everything behind `db.py`: sessions, transactions, and the questions about trades, candles and gaps."""
