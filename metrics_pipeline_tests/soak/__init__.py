"""The whole product for hours: what it misses, and what grows."""
