"""Each fault that may come, made under load; afterwards every point is accounted for."""
