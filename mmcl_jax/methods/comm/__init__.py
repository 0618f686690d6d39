"""COMM, as we read it: its method, and the parts that it is made of."""
