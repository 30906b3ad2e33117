"""List and empty the cache of decoded images.

Example: cxrtool cache empty --older-than 30
"""

KINDS = ("list", "empty")
