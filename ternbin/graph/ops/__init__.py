"""The ops: each a class with its attributes, its type rule and what it computes. Importing the package registers all of them."""

from ternbin.graph.ops import attention as attention
from ternbin.graph.ops import codes as codes
from ternbin.graph.ops import ends as ends
from ternbin.graph.ops import linear as linear
from ternbin.graph.ops import stream as stream
