"""What a run needs on some hardware, estimated before it is started."""
