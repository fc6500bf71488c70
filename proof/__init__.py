"""The proof: a day's stored trades compared with what the exchange published, the verdict, and the certificate."""
