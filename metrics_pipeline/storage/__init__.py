"""Where points are kept, and the one writer that puts them there."""
