"""What comes back for mail that has left: return paths, and what arrives at them."""
