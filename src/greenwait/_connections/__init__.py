"""Features built on the wait: connecting, shared connections, pools, notifications."""
