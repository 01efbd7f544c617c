"""A module of somebody's, with what a model takes from it."""

FACTOR = 2.0


def scaled(x):
    return x * FACTOR
