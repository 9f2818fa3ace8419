"""The output folder: objects published all at once, and the manifest."""
