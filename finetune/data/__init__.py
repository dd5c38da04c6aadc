"""Building of the training data: the sound bank and everything mixed from it."""
