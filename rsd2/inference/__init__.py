"""Detection in images and videos of any size, and the files and pictures that come of it."""
