"""What the commands print: tables, summaries, the progress of one training."""
