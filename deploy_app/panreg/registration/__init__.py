"""The registration by the bundle: its input, its result, the quality gate."""
