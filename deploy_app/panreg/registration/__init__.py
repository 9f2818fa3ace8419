"""The registration by the bundle, and what is told of it."""
