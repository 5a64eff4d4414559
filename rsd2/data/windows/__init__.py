"""Windows over images and videos: their places, what belongs to them, tiles on disk."""
