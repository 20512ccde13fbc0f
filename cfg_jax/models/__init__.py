"""Networks: the paper's U-Net, the exact Gaussian mixture with the same eps_fn, and feature networks."""
