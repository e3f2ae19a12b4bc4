"""Numbers as a person reads them on a terminal."""

from __future__ import annotations

from decimal import Decimal

SHORTEST, LONGEST = 1e-9, 1e21
WHOLE_FROM = 1e10  # above it ten digits that count would not reach the point


def in_digits(value: float) -> str:
    """Every digit of a whole number, ten that count of a fraction, and no exponent.

    Only what would be a long row of zeros, beyond 1e21 or nearer to 0 than 1e-9, has an exponent;
    what is no number is told as Python does.
    """
    ten_digits = f"{value:.10g}"
    if not (value == 0 or SHORTEST <= abs(value) < LONGEST):
        return ten_digits
    if value == int(value) or abs(value) >= WHOLE_FROM:
        return str(round(value))
    return f"{Decimal(ten_digits):f}"
