"""Looking after the daemon: the admin and queue tools, the control socket, the service manager. Owns nothing."""
