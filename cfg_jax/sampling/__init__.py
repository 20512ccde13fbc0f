"""A trained model, and images from it."""
