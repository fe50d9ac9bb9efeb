"""The generated demonstration task: judging whether English sentences are acceptable."""
