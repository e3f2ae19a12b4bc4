"""Real servers on real ports that behave like the outside: for `make run`, the tests and the docs."""
