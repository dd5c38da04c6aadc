"""Recipes: the YAML files that ship with the package, and what reads them and says what is wrong with them."""
