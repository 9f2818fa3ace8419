"""A Deformable Spatial Registration object, ours or another's, applied to the series that it moves."""
