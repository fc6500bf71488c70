"""The benchmark: what the capture, the questions and other recorders can do on this machine."""
