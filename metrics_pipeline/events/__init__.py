"""Tells others what happened: a publisher that costs its caller nothing, and where it sends to."""
