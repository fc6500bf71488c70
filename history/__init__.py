"""The exchange's history: which days are wanted, and how a day's file comes into the tables."""
