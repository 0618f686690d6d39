"""Methods: a file each, in the table of `registry`, and the parts they share."""
