"""The training loop, its losses, and how a training that was killed goes on."""
