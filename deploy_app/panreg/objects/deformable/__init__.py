"""The Deformable Spatial Registration object: its grid, its writer, its reader."""
