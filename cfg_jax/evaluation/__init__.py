"""Images from a run, features of images, and scores of features."""
