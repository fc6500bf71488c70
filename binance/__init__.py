"""The exchange's protocol beside the frames: what a valid trade is, the REST calls, and the exchange's limits."""
