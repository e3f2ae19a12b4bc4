"""Real servers on real ports that behave like the outside: for `make run`, tests and docs."""
