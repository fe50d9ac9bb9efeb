"""What a search reports while it runs."""
