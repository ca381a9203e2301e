"""What runs leave: records, status, masks, predictions; read and written here alone."""
