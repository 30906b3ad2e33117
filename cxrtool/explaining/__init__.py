"""Where in a picture a network saw what it named."""
