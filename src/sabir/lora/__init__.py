"""What an adapter is: low-rank deltas, and the PEFT folders that hold them."""
