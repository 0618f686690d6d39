"""From a config to a learnt stream: the loop and all that it needs."""
