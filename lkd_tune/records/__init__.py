"""What a run folder holds, as plain data: trials, measurements, outcomes and their ranking."""
