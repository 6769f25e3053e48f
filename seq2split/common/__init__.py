"""What every package may use, and what knows of none of them."""
