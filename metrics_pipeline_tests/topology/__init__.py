"""The topology of docker/compose.yaml, natively, whose processes are killed while they work."""
