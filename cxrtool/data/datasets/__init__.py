"""One file an adapter: how a published dataset lies on disk."""
