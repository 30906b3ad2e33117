"""Severities in order, and the rule that makes them of a rater's score. Needs only the standard library."""

SEVERITY, ESTIMATED = "severity", "severity_estimated"
"""The columns of severities that somebody rated, and of those that `grade` read from the pixels; never one column."""

SEVERITIES = ("normal-pcr+", "mild", "moderate", "severe")
"""The strata of COVIDGR-1.0 from least to most."""

HIGHEST = 8
_ENDS = (0.5, 2.5, 5.5)


def stratum_of(extent: float) -> str:
    """The severity of an extent from 0 to 8, 0 to 4 for each lung.

    The scores 0, 1-2, 3-5 and 6-8 of COVIDGR-1.0 (Tabik et al. 2020); a mean of raters is rounded to the nearest.

    >>> [stratum_of(extent) for extent in (0, 0.4, 0.5, 2.4, 2.5, 5.4, 5.5, 8)]
    ['normal-pcr+', 'normal-pcr+', 'mild', 'mild', 'moderate', 'moderate', 'severe', 'severe']
    """
    return SEVERITIES[sum(extent >= end for end in _ENDS)]
