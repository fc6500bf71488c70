"""Values and arithmetic: trades, gaps, candles and times. No input or output, and no clock."""
