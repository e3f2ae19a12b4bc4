"""The assets, one file for each system. An asset calls a source and hands on its points."""
