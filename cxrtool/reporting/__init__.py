"""Pages for readers: one file, no network, for screen and print."""
