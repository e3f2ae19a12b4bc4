"""The sidecar that Prometheus scrapes: looks at the instance and the latest values in the
background, and answers from memory. Reads only; nothing here writes a point."""
