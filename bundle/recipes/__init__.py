"""Published data sets, from the folders in which they are distributed to what ``prepare`` takes: one module each."""

from bundle.recipes.abdomenmrct import ABDOMENMRCT
from bundle.recipes.ixi import IXI
from bundle.recipes.lpba40 import LPBA40
from bundle.recipes.recipe import Recipe

__all__ = ["RECIPES", "Recipe"]

RECIPES = {"ixi": IXI, "lpba40": LPBA40, "abdomenmrct": ABDOMENMRCT}
