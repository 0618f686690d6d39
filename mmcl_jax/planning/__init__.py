"""What a run will need on some hardware, before it is started."""
