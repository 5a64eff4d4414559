"""Pictures of images and videos with their boxes."""
