"""With what: the encoder, the heads, and the model that joins them."""
