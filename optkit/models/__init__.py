"""Models: loading them without running their code, and what differs between their families."""
