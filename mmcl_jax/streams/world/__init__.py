"""A procedural world: 168 concepts, each to be seen, heard, felt and read about."""
