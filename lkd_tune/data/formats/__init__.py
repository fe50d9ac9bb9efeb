"""The formats of local data files: which columns a file has, and the file as a table."""
