"""What draws the parameters of the next trial."""
