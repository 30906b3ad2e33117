"""The names of the lungs and of their zones. Right is the patient's right. Needs only the standard library."""

SIDES = ("right", "left")
LEVELS = ("upper", "middle", "lower")
ZONES = tuple(f"{side}_{level}" for side in SIDES for level in LEVELS)
"""The six zones, as Brixia scores list them."""

REGIONS = ("lungs", *SIDES, *ZONES)
"""Both lungs, each, and the zones of each."""

PREFIX = "opacity_"
"""Of the manifest's columns with the share of a region that is opaque."""

NETWORK = PREFIX + "network"
"""The column with the beginning of the digest of the network that found the opacities."""

SEEN = PREFIX + "seen"
"""The column that marks images on which, or on whose patient, the network was fitted that found the opacities."""
