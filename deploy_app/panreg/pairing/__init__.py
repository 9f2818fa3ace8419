"""Which stack is fixed and which moves, and whether the two may be registered."""
