"""MICML / MICPL (TNNLS 2024): moving objects of a few pixels in satellite video, and DSFNet."""
