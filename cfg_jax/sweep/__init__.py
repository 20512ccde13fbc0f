"""Score runs over w in cells on the disk, and make tables, verdicts on claims, and pages of them."""
