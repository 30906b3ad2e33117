"""What an accuracy is worth: leakage, confounding, shortcuts, and external images."""
