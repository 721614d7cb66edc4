"""Recipes: an experiment as one file, from the data to the table beside the published numbers."""

from __future__ import annotations

from tiir.recipes.outcome import Outcome
from tiir.recipes.recipe import Published, Recipe, Reported, Rerank, find_recipe, read_recipe, shipped
from tiir.recipes.steps import recipe_steps, run_recipe

__all__ = [
    "Outcome",
    "Published",
    "Recipe",
    "Reported",
    "Rerank",
    "find_recipe",
    "read_recipe",
    "recipe_steps",
    "run_recipe",
    "shipped",
]
