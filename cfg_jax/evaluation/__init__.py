"""Images from a run, features of images, scores of features, and the sweep over w that the paper reports."""
