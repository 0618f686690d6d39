"""A procedural world: 252 concepts, each to be seen, heard, felt and read about."""
