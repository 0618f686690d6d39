"""Methods: one file each, listed in `registry`, and the parts that they share."""
