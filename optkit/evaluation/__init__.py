"""Is the answer still right, and how fast: every rung from PyTorch to the server, intervals, the gate."""
