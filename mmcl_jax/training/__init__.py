"""From a config to a learnt stream: the training loop and its parts."""
