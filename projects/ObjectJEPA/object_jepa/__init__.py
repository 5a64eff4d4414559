"""ObjectJEPA: pre-training that predicts latent features of patches chosen by object boxes.

The encoder becomes the backbone of a detector.
"""
