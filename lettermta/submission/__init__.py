"""Who may send, and what the control headers mean: from an envelope and its content to a message ready to be stored."""
