"""MutDet (ECCV 2024): mutually optimising pre-training of rotated detectors, and rotated DETReg.

The offline part makes pseudo-boxes and object embeddings; the models learn from them.
"""
