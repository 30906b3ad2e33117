"""Parse, call one step, print: one file a command."""
