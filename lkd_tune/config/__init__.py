"""What a user asks for, as plain data: the space file, its distributions, one resolved trial."""
