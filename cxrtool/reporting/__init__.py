"""Pages that a person reads: one file, no network, as good in print as on a screen."""
