"""A call as a program: staged with its module calls, kept, and what it depends on watched."""
