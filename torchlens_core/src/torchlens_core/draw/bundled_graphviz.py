"""A program: DOT text on standard input to a picture on standard output, by the libraries that pygraphviz carries."""

import sys

import pygraphviz


def main() -> None:
    """Lay out what stands on standard input in the format that the first argument names."""
    version = pygraphviz.__version__
    if int(version.partition(".")[0]) < 2:
        raise SystemExit(f"pygraphviz {version} carries no Graphviz libraries; 2.0 or later does")
    graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
    sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog="dot"))


if __name__ == "__main__":
    main()
