"""Pictures of traces: a graph becomes a scene, a scene gets its look, and a renderer makes a file of it."""

from .backward import draw_backward as draw_backward
from .draw import draw as draw
from .drawing import Drawing as Drawing
from .picture import Picture as Picture
from .renderers import Renderer as Renderer
from .scene import Edge as Edge
from .scene import Group as Group
from .scene import Node as Node
from .scene import Scene as Scene
from .style import NodeSpec as NodeSpec
