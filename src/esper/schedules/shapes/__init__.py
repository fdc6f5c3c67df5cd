"""The decay shapes, found in the modules of this package: a new one is a new file here."""

import importlib
import pkgutil

from esper.schedules.shape import shapes

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

SHAPES = shapes()
