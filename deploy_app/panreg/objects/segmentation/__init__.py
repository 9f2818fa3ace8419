"""Segmentations and structure sets of the moving series, propagated to the fixed one."""
