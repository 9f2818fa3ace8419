"""What the process needs before any library is imported."""
