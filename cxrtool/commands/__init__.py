"""What a command does: read a manifest, call the rooms below, write a step folder."""
