"""Pure functions on arrays of grey values."""
