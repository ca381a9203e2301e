"""What runs leave in their folders."""
