"""Matplotlib, which draws into files. Only this module imports it."""

import logging

_log = logging.getLogger("matplotlib")
_level = _log.level
# Where the home cannot be written, it would say in every run that it cannot keep its list of fonts.
_log.setLevel(logging.ERROR)
try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator
finally:
    _log.setLevel(_level)

__all__ = ["Axes", "Figure", "MaxNLocator", "Patch", "plt"]
