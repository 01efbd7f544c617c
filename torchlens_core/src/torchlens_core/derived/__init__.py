"""What follows from a program, worked out once and in linear time: graph, layers, labels, indexes."""
