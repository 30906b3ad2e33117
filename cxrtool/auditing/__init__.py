"""What an accuracy is worth: leaks, confounding, shortcuts, and what happens elsewhere."""
