"""What a run leaves on disk: its directory, checkpoints, history and sessions."""
