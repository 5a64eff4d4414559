"""rsd2: object detection in overhead imagery on Detectron2."""

__version__ = "0.1.0"
