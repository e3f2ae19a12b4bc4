"""How long a test waits for what must come, before it says that it will not."""

PATIENCE_SECONDS = 600.0
"""No promise of the product: machines are shared, and one may be many times slower than another.

Who waits returns as soon as there is something to see, so it costs nothing where all is well.
"""
