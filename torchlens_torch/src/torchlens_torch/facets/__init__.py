"""Recipes of facets for PyTorch models: attention, recurrent layers, MLPs, residual blocks, norms.

They go by class names, by the names of the modules inside and by plain attributes, so that they import neither torch
nor any library of models, and work on the trace files of models that are not installed.
"""

from .attention import RECIPES as ATTENTION
from .blocks import RECIPES as BLOCKS
from .mlp import RECIPES as MLP
from .multihead import RECIPES as MULTIHEAD
from .norms import RECIPES as NORMS
from .recurrent import RECIPES as RECURRENT

RECIPES = (*NORMS, *MLP, *BLOCKS, *RECURRENT, *ATTENTION, *MULTIHEAD)
