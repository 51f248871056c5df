"""Data, loops and losses of training: what the weights of the package are made with."""
