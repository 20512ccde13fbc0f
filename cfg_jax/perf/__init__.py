"""What a config costs, by its program and by the clock."""
