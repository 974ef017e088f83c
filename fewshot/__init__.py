"""Few-shot image classification on MLX.

Public names are loaded when first used: importing fewshot loads no plugin and no MLX. They are
listed once, in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
