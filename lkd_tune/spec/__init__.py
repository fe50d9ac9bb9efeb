"""What was asked for, as plain data: the space file, one trial, its layer maps, its results."""
