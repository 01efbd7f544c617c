"""A call taken apart: a pure function of arrays, and a key of all else that a program depends on."""
