"""One page, and figures and tables for a paper, of what runs have left behind."""
