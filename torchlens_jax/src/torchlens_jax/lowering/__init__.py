"""A jaxpr as operations at the level of functions, with names, layers and places in the user's code."""
